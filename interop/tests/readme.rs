//! The README's first link by hand, command by command as it is printed there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use interop::demo::Scene;
use interop::enter;
use interop::process::Launch;
use interop::wait::eventually;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SOON: Duration = Duration::from_secs(20);

/// The fenced blocks of one section, each with its language.
fn blocks(section: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in section.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// The `ccn` commands of a block, as words without their comments.
fn commands(block: &str) -> Vec<Vec<String>> {
    let bare = |line: &str| {
        line.split(" #")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let lines = block.lines().map(bare).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn the_first_link_by_hand_works_as_the_readme_prints_it() {
    enter::test(|lab| {
        let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md"))?;
        let section = readme
            .split("\n## ")
            .find(|section| section.starts_with("A first link by hand"))
            .ok_or("the README has no section on a first link by hand")?;
        let blocks = blocks(section);
        let text = |language: &str| -> Vec<&str> {
            let of = blocks.iter().filter(|(of, _)| of == language);
            of.map(|(_, text)| text.as_str()).collect()
        };
        let [toml, more] = text("toml")[..] else {
            return Err("a configuration, and what more it may say, are expected".into());
        };
        let [daemon, orders] = text("sh")[..] else {
            return Err("two blocks of commands are expected".into());
        };

        let mut scene = Scene::build(lab)?;
        scene.gateway.stop()?;
        // Where the reader's gateway keeps its files, the lab has none of its own.
        let store = scene
            .gateway
            .config
            .store
            .path
            .with_file_name("readme.redb");
        let config = lab.run().join("readme.toml");
        std::fs::write(&config, format!("{toml}\n[store]\npath = {store:?}\n"))?;
        let namespace = scene.region.namespace("gw")?;
        let ccn = |words: &[String]| {
            assert_eq!(words[0], "ccn", "{words:?}");
            Launch::new(binary())
                .args(&words[1..])
                .env("CCN_CONFIG", &config)
                .in_namespace(namespace.fd())
        };
        std::env::set_current_dir(ROOT)?;

        let daemon = commands(daemon);
        let [check, agent] = &daemon[..] else {
            return Err(format!("a check and a start are expected, not {daemon:?}").into());
        };
        let whole = std::fs::read_to_string(&config)?;
        std::fs::write(&config, format!("{whole}\n{more}"))?;
        ccn(check).output(SOON)?;
        std::fs::write(&config, whole)?;
        ccn(check).output(SOON)?;
        let _agent = ccn(agent).start(&lab.scratch().join("readme-agent.log"))?;
        let status = ["ccn", "status"].map(str::to_owned);
        eventually("the agent answers", SOON, || {
            ccn(&status).output(SOON).map_err(|error| error.to_string())
        })?;

        let orders = commands(orders);
        assert!(orders.len() >= 5, "{orders:?}");
        for words in &orders {
            let said = ccn(words).output(SOON)?;
            assert!(!said.is_empty(), "{words:?} says something");
            if words[1] == "explain" {
                assert!(said.contains("encapsulate"), "{said}");
                assert!(said.contains("agrees"), "{said}");
            }
        }
        Ok(())
    });
}

/// The `ccn` of this build: test programs are one folder below it.
fn binary() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let folder = exe.ancestors().nth(2).unwrap_or(Path::new("."));
    folder.join("ccn")
}
