//! Messages written as hex: spaces and `# comments` are skipped, the header is added.

use bgp::wire::frame::HEADER_LEN;

/// The octets of a hex text.
pub(crate) fn octets(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    assert!(
        digits.len().is_multiple_of(2),
        "odd number of hex digits in {text:?}"
    );
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits"))
        .collect()
}

/// A whole message of this type around a body.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    let length = u16::try_from(HEADER_LEN + body.len()).expect("body fits");
    message.extend(length.to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// The body of an UPDATE made of its three fields.
pub(crate) fn update_body(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| {
        u16::try_from(field.len())
            .expect("field fits")
            .to_be_bytes()
    };
    [
        &length(withdrawn),
        withdrawn,
        &length(attributes),
        attributes,
        nlri,
    ]
    .concat()
}

/// Hex digits, for messages of failing tests.
pub(crate) fn show(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
