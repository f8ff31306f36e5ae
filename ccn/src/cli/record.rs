//! Orders for single records: what is made of each, and how it is sent.
//!
//! An update looks at the record, changes what is named, and puts it on the condition that nobody was faster;
//! else it looks again.

use std::fmt::Display;

use clap::Args;
use serde_json::Value;

use super::CliError;
use super::client::{Client, ClientError};
use super::output::Output;
use super::record_args::{
    CcsiChange, CcsiFields, ClassicChange, ClassicFields, Node, SlbChange, SlbFields, Verb,
    VmChange, VmFields, VpcChange, VpcFields,
};
use crate::api::RecordView;
use crate::api::error::ErrorCode;
use crate::record::{
    Ccsi, Classic, Extra, KeyError, Kind, Record, RecordKey, Slb, SlbNode, Vm, Vpc, Vtep, Weight,
};

/// How often an update looks again because others were faster.
const ATTEMPTS: usize = 20;

/// The fields of a record that is to be made.
pub(super) trait Fields: Args {
    /// The record.
    fn record(self) -> Record;
}

/// What is to be changed of a record.
pub(super) trait Change: Args {
    /// Changes it; the error says what cannot be done.
    fn apply(&self, record: &mut Record) -> Result<(), String>;
}

pub(super) async fn run<F: Fields, C: Change>(
    kind: Kind,
    verb: Verb<F, C>,
    client: &Client,
    out: Output,
) -> Result<(), CliError> {
    let key = |name: &str| -> Result<RecordKey, CliError> {
        let key = format!("{}/{name}", kind.folder());
        key.parse()
            .map_err(|error: KeyError| CliError::Usage(error.to_string()))
    };
    match verb {
        Verb::Create { name, fields } => create(&key(&name)?, &fields.record(), client, out).await,
        Verb::Update { name, change } => update(&key(&name)?, &change, client, out).await,
        Verb::Delete { name } => {
            let key = key(&name)?;
            let done = client.delete(&path(&key)).await?;
            out.json(&done)?;
            Ok(out.line(format!("deleted {key}"))?)
        }
        Verb::Show { name } => {
            let view: RecordView = client.get(&path(&key(&name)?)).await?;
            show(&view, out)
        }
    }
}

fn path(key: &RecordKey) -> String {
    format!("/v1/records/{key}")
}

async fn create(
    key: &RecordKey,
    record: &Record,
    client: &Client,
    out: Output,
) -> Result<(), CliError> {
    let condition = ("if-none-match", "*");
    let view: RecordView = client.put(&path(key), record, condition).await?;
    out.json(&view)?;
    Ok(out.line(format!("created {key}: {}", words(&view.value)))?)
}

async fn update(
    key: &RecordKey,
    change: &impl Change,
    client: &Client,
    out: Output,
) -> Result<(), CliError> {
    let path = path(key);
    for _ in 0..ATTEMPTS {
        let seen: RecordView = client.get(&path).await?;
        let before = Record::from_value(key, seen.value.clone()).map_err(|error| {
            CliError::Failed(format!("{error}; `ccn import` puts it anew as a whole"))
        })?;
        let mut record = before.clone();
        change
            .apply(&mut record)
            .map_err(|why| CliError::Failed(format!("{key}: {why}")))?;
        if record == before {
            out.json(&seen)?;
            return Ok(out.line(format!("{key} is so already: {}", words(&seen.value)))?);
        }
        let tag = format!("\"{}\"", seen.generation);
        match client.put(&path, &record, ("if-match", &tag)).await {
            Ok(view) => {
                let view: RecordView = view;
                out.json(&view)?;
                return Ok(out.line(format!("updated {key}: {}", words(&view.value)))?);
            }
            // Gone it is no more to be updated, and the next look says so.
            Err(ClientError::Api(error)) if error.code == ErrorCode::Changed => {}
            Err(error) => return Err(error.into()),
        }
    }
    let message = format!("others changed {key} {ATTEMPTS} times meanwhile: try again");
    Err(CliError::Failed(message))
}

fn show(view: &RecordView, out: Output) -> Result<(), CliError> {
    out.json(view)?;
    out.line(format!("{:<12}generation {}", view.key, view.generation))?;
    match &view.value {
        Value::Object(fields) => {
            for (field, value) in fields {
                out.line(format!("{field:<12}{}", words(value)))?;
            }
        }
        other => out.line(words(other))?,
    }
    for fault in &view.faults {
        out.line(format!("ignored: {}: {}", fault.field, fault.reason))?;
    }
    Ok(())
}

/// A value in one line: the fields of an object with their names.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(field, value)| format!("{field} {}", words(value)));
            fields.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Changes a list: another one, or without some and with others. What is there already does not come twice.
fn edit<T: PartialEq + Display + Clone>(
    field: &str,
    list: &mut Vec<T>,
    set: &[T],
    add: &[T],
    remove: &[T],
) -> Result<(), String> {
    if !set.is_empty() {
        *list = set.to_vec();
    }
    for item in remove {
        let at = list.iter().position(|there| there == item);
        list.remove(at.ok_or_else(|| format!("{field}: {item} is not there to be removed"))?);
    }
    for item in add {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
    Ok(())
}

/// The same of the nodes of an SLB, which are told apart by their VTEPs. Of one that is there already what is not
/// given stays.
fn edit_nodes(
    nodes: &mut Vec<SlbNode>,
    set: &[Node],
    add: &[Node],
    remove: &[Vtep],
) -> Result<(), String> {
    if !set.is_empty() {
        *nodes = set.iter().map(node).collect();
    }
    for vtep in remove {
        let at = nodes.iter().position(|node| node.vtep == *vtep);
        nodes.remove(at.ok_or_else(|| format!("nodes: {vtep} is not there to be removed"))?);
    }
    for new in add {
        match nodes.iter_mut().find(|node| node.vtep == new.vtep) {
            Some(there) => {
                there.weight = new.weight.unwrap_or(there.weight);
                there.mac = new.mac.or(there.mac);
            }
            None => nodes.push(node(new)),
        }
    }
    Ok(())
}

fn node(given: &Node) -> SlbNode {
    SlbNode {
        vtep: given.vtep,
        weight: given.weight.unwrap_or(Weight::ONE),
        mac: given.mac,
        extra: Extra::new(),
    }
}

/// A record of another kind than its key says does not come from the parser.
fn other_kind() -> Result<(), String> {
    Err("is a record of another kind".to_owned())
}

impl Fields for VpcFields {
    fn record(self) -> Record {
        Record::Vpc(Vpc {
            vni: self.vni,
            subnets: self.subnet,
            extra: Extra::new(),
        })
    }
}

impl Change for VpcChange {
    fn apply(&self, record: &mut Record) -> Result<(), String> {
        let Record::Vpc(vpc) = record else {
            return other_kind();
        };
        vpc.vni = self.vni.unwrap_or(vpc.vni);
        let (set, add, remove) = (&self.subnet, &self.add_subnet, &self.remove_subnet);
        edit("subnets", &mut vpc.subnets, set, add, remove)
    }
}

impl Fields for VmFields {
    fn record(self) -> Record {
        Record::Vm(Vm {
            addrs: self.addr,
            mac: self.mac,
            vtep: self.vtep,
            extra: Extra::new(),
        })
    }
}

impl Change for VmChange {
    fn apply(&self, record: &mut Record) -> Result<(), String> {
        let Record::Vm(vm) = record else {
            return other_kind();
        };
        vm.mac = self.mac.unwrap_or(vm.mac);
        vm.vtep = self.vtep.unwrap_or(vm.vtep);
        let (set, add, remove) = (&self.addr, &self.add_addr, &self.remove_addr);
        edit("addrs", &mut vm.addrs, set, add, remove)
    }
}

impl Fields for SlbFields {
    fn record(self) -> Record {
        Record::Slb(Slb {
            vips: self.vip,
            nodes: self.node.iter().map(node).collect(),
            extra: Extra::new(),
        })
    }
}

impl Change for SlbChange {
    fn apply(&self, record: &mut Record) -> Result<(), String> {
        let Record::Slb(slb) = record else {
            return other_kind();
        };
        let (set, add, remove) = (&self.vip, &self.add_vip, &self.remove_vip);
        edit("vips", &mut slb.vips, set, add, remove)?;
        edit_nodes(
            &mut slb.nodes,
            &self.node,
            &self.add_node,
            &self.remove_node,
        )
    }
}

impl Fields for CcsiFields {
    fn record(self) -> Record {
        Record::Ccsi(Ccsi {
            vpcs: self.vpc,
            extra: Extra::new(),
        })
    }
}

impl Change for CcsiChange {
    fn apply(&self, record: &mut Record) -> Result<(), String> {
        let Record::Ccsi(ccsi) = record else {
            return other_kind();
        };
        let (set, add, remove) = (&self.vpc, &self.add_vpc, &self.remove_vpc);
        edit("vpcs", &mut ccsi.vpcs, set, add, remove)
    }
}

impl Fields for ClassicFields {
    fn record(self) -> Record {
        Record::Classic(Classic {
            prefixes: self.prefix,
            extra: Extra::new(),
        })
    }
}

impl Change for ClassicChange {
    fn apply(&self, record: &mut Record) -> Result<(), String> {
        let Record::Classic(classic) = record else {
            return other_kind();
        };
        let (set, add, remove) = (&self.prefix, &self.add_prefix, &self.remove_prefix);
        edit("prefixes", &mut classic.prefixes, set, add, remove)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::args::{Cli, Command};

    /// What a command line makes of a record: of none when it creates one.
    fn made(line: &str, before: Option<Value>) -> Result<Value, String> {
        fn of<F: Fields, C: Change>(
            kind: Kind,
            verb: Verb<F, C>,
            before: Option<Value>,
        ) -> Result<Value, String> {
            let record = match verb {
                Verb::Create { fields, .. } => fields.record(),
                Verb::Update { name, change } => {
                    let key = format!("{}/{name}", kind.folder()).parse().unwrap();
                    let mut record = Record::from_value(&key, before.unwrap()).unwrap();
                    change.apply(&mut record)?;
                    record
                }
                other => panic!("{:?}", std::mem::discriminant(&other)),
            };
            Ok(serde_json::to_value(record).unwrap())
        }
        let words = std::iter::once("ccn").chain(line.split(' '));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Vpc { verb } => of(Kind::Vpc, verb, before),
            Command::Vm { verb } => of(Kind::Vm, verb, before),
            Command::Slb { verb } => of(Kind::Slb, verb, before),
            Command::Ccsi { verb } => of(Kind::Ccsi, verb, before),
            Command::Classic { verb } => of(Kind::Classic, verb, before),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_made_of_words() {
        let vm = json!({"addrs": ["10.1.0.5"], "mac": "02:00:00:00:00:05", "vtep": "172.16.0.1"});
        let node = |vtep: &str, weight: u64| json!({"vtep": vtep, "weight": weight});
        for (line, record) in [
            (
                "vpc create web --vni 7 --subnet 10.1.0.0/24 fd00::/64",
                json!({"vni": 7, "subnets": ["10.1.0.0/24", "fd00::/64"]}),
            ),
            ("vpc create web --vni 7", json!({"vni": 7, "subnets": []})),
            (
                "vm create web/a --addr 10.1.0.5 --mac 02:00:00:00:00:05 --vtep 172.16.0.1",
                vm,
            ),
            (
                "slb create web/l --vip 10.1.0.9 --node 172.16.0.1 --node 172.16.0.2=3 --node 172.16.0.3=2,02:00:00:00:00:07",
                json!({"vips": ["10.1.0.9"], "nodes": [
                    node("172.16.0.1", 1),
                    node("172.16.0.2", 3),
                    {"vtep": "172.16.0.3", "weight": 2, "mac": "02:00:00:00:00:07"},
                ]}),
            ),
            ("ccsi create c --vpc web db", json!({"vpcs": ["web", "db"]})),
            (
                "classic create office --prefix 10.80.1.0/24",
                json!({"prefixes": ["10.80.1.0/24"]}),
            ),
        ] {
            assert_eq!(made(line, None), Ok(record), "{line}");
        }
    }

    #[test]
    fn an_update_changes_what_is_named_and_nothing_else() {
        let vpc = json!({"vni": 7, "subnets": ["10.1.0.0/24", "10.2.0.0/24"], "owner": "net"});
        let slb = json!({"vips": ["10.1.0.9"], "nodes": [
            {"vtep": "172.16.0.1", "weight": 2, "mac": "02:00:00:00:00:07", "rack": "r1"},
            {"vtep": "172.16.0.2", "weight": 1},
        ]});
        let changed = |before: &Value, pointer: &str, value: Value| {
            let mut after = before.clone();
            *after.pointer_mut(pointer).expect("it is there") = value;
            after
        };
        let subnets = |list: &[&str]| changed(&vpc, "/subnets", json!(list));
        for (line, before, after) in [
            (
                "vpc update web --vni 8",
                &vpc,
                changed(&vpc, "/vni", json!(8)),
            ),
            (
                "vpc update web --subnet 10.3.0.0/24",
                &vpc,
                subnets(&["10.3.0.0/24"]),
            ),
            (
                "vpc update web --add-subnet 10.3.0.0/24 --remove-subnet 10.1.0.0/24",
                &vpc,
                subnets(&["10.2.0.0/24", "10.3.0.0/24"]),
            ),
            ("vpc update web --add-subnet 10.2.0.0/24", &vpc, vpc.clone()),
            (
                "slb update web/l --add-node 172.16.0.1=5",
                &slb,
                changed(&slb, "/nodes/0/weight", json!(5)),
            ),
            ("slb update web/l --add-node 172.16.0.1", &slb, slb.clone()),
            (
                "slb update web/l --remove-node 172.16.0.1 --add-node 172.16.0.3=4",
                &slb,
                changed(
                    &slb,
                    "/nodes",
                    json!([{"vtep": "172.16.0.2", "weight": 1}, {"vtep": "172.16.0.3", "weight": 4}]),
                ),
            ),
            (
                "slb update web/l --node 172.16.0.1",
                &slb,
                changed(&slb, "/nodes", json!([{"vtep": "172.16.0.1", "weight": 1}])),
            ),
            (
                "ccsi update c --add web --remove db",
                &json!({"vpcs": ["db", "x"]}),
                json!({"vpcs": ["x", "web"]}),
            ),
            (
                "vm update web/a --vtep 172.16.0.9",
                &json!({"addrs": ["10.1.0.5"], "mac": "02:00:00:00:00:05", "vtep": "172.16.0.1", "az": 1}),
                json!({"addrs": ["10.1.0.5"], "mac": "02:00:00:00:00:05", "vtep": "172.16.0.9", "az": 1}),
            ),
        ] {
            assert_eq!(made(line, Some(before.clone())), Ok(after), "{line}");
        }
        for (line, why) in [
            (
                "vpc update web --remove-subnet 10.9.0.0/24",
                "10.9.0.0/24 is not there",
            ),
            ("vpc update web", "required"),
            (
                "vpc update web --subnet 10.3.0.0/24 --add-subnet 10.4.0.0/24",
                "cannot be used with",
            ),
        ] {
            let said = made(line, Some(vpc.clone())).expect_err(line);
            assert!(said.contains(why), "{line}: {said}");
        }
        let said = made("slb update web/l --remove-node 172.16.0.7", Some(slb)).unwrap_err();
        assert!(said.contains("172.16.0.7 is not there"), "{said}");
    }

    #[test]
    fn words_that_are_none_are_refused() {
        for (line, why) in [
            (
                "slb create web/l --vip 10.1.0.9 --node 172.16.0.1=much",
                "no weight",
            ),
            (
                "slb create web/l --vip 10.1.0.9 --node 172.16.0.1=0",
                "1 to 256",
            ),
            (
                "slb create web/l --vip 10.1.0.9 --node 172.16.0.1=1,",
                "no MAC",
            ),
            (
                "slb create web/l --vip 10.1.0.9 --node here",
                "no IP address",
            ),
            ("vm create web/a --addr 10.1.0.5 --vtep 172.16.0.1", "--mac"),
            ("vpc create web", "--vni"),
            ("classic create office", "--prefix"),
        ] {
            let said = made(line, None).expect_err(line);
            assert!(said.contains(why), "{line}: {said}");
        }
    }

    #[test]
    fn a_record_in_words() {
        let record =
            json!({"vips": [], "nodes": [{"vtep": "a", "weight": 1}, {"vtep": "b"}], "x": null});
        assert_eq!(words(&record), "nodes vtep a weight 1, vtep b vips - x -");
    }
}
