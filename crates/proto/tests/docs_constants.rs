//! `docs/protocol.md` names every constant with its value, and every message type: compared here with the source.
//!
//! The test reads the constants as they are written in the source files, which is all that private ones allow, and
//! evaluates the few forms they have (durations, rates, sums and products of other constants).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

/// The files whose constants the table must have, by the prefix of their names there.
const SOURCES: [(&str, &str); 14] = [
    ("id", "id.rs"),
    ("identity", "identity.rs"),
    ("wire", "wire/mod.rs"),
    ("wire::addr", "wire/addr.rs"),
    ("wire::announce", "wire/announce.rs"),
    ("wire::cluster", "wire/cluster/mod.rs"),
    ("wire::frame", "wire/frame.rs"),
    ("wire::joined", "wire/joined.rs"),
    ("wire::peer", "wire/peer.rs"),
    ("wire::relay", "wire/relay.rs"),
    ("wire::tcp", "wire/tcp.rs"),
    ("wire::udp", "wire/udp.rs"),
    ("host", "host/config.rs"),
    ("base", "base/config.rs"),
];

/// Constants that are an alphabet or a way of showing something, and described where they are used.
const NOT_IN_THE_TABLE: [&str; 2] = ["id::GROUP", "id::ALPHABET"];

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The constants of the source, `prefix::NAME` → expression; the defaults of `BaseConfig` among them.
fn constants() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (prefix, file) in SOURCES {
        let source = read(&format!("src/{file}"));
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for statement in top_level_constants(code) {
            let (name, rest) = statement.split_once(':').expect("a type follows");
            let (_, value) = rest.split_once('=').expect("a value follows");
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            all.insert(format!("{prefix}::{}", name.trim()), value);
        }
        if file == "base/config.rs" {
            let (_, default) = code.split_once("fn default()").expect("BaseConfig has a default");
            for line in default.lines().take_while(|line| *line != "}") {
                if let Some((name, value)) = line.trim().trim_end_matches(',').split_once(": ") {
                    all.insert(format!("BaseConfig::{name}"), value.to_owned());
                }
            }
        }
    }
    all
}

/// `NAME: TYPE = VALUE` of every constant that begins a line.
fn top_level_constants(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let starts = ["const ", "pub const ", "pub(super) const ", "pub(crate) const "];
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let Some(start) = starts.iter().find_map(|start| line.strip_prefix(start)) else { continue };
        if start.starts_with("fn ") {
            continue;
        }
        let mut statement = start.to_owned();
        while !statement.ends_with(';') {
            statement.push(' ');
            statement.push_str(lines.next().expect("a statement ends"));
        }
        found.push(statement.trim_end_matches(';').to_owned());
    }
    found
}

/// A value as the table writes it.
fn shown(name: &str, expression: &str, all: &BTreeMap<String, String>) -> String {
    if let Some(time) = milliseconds(expression) {
        return show_time(time);
    }
    if let Some(n) = inside(expression, "Rate::per_second(", ")") {
        return format!("{}/s", thousands(literal(n).expect("a number")));
    }
    if let Some(rate) = inside(expression, "Rate { burst: ", " }") {
        let (burst, every) = rate.split_once(", every: ").expect("burst and time");
        let burst = thousands(literal(burst).expect("a number"));
        if let Some(per_minute) = inside(every, "Duration::from_nanos(60_000_000_000 / ", ")") {
            assert_eq!(thousands(literal(per_minute).expect("a number")), burst, "{name}");
            return format!("{burst}, earned back within 60 s");
        }
        return format!("{burst}, then one per {}", show_time(milliseconds(every).expect("a time")));
    }
    if let Some(items) = inside(expression, "[", "]").or_else(|| inside(expression, "(", ")")) {
        return items.split(", ").map(|item| shown(name, item, all)).collect::<Vec<_>>().join(", ");
    }
    if let Some(text) = inside(expression, "*b\"", "\"") {
        let bytes = text.replace("\\x0b", "\x0b");
        return bytes.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    }
    if let Some(groups) = inside(expression, "Ipv6Addr::new(", ")") {
        return groups.replace("0x", "").replace(", ", ":");
    }
    match number(name, expression, all) {
        Some(port) if name.ends_with("PORT") => port.to_string(),
        Some(number) => thousands(number),
        None => expression.to_lowercase(),
    }
}

fn inside<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

fn milliseconds(expression: &str) -> Option<u64> {
    let seconds =
        inside(expression, "secs(", ")").or_else(|| inside(expression, "Duration::from_secs(", ")"));
    let millis = inside(expression, "ms(", ")").or_else(|| inside(expression, "Duration::from_millis(", ")"));
    seconds.and_then(literal).map(|s| s * 1_000).or_else(|| millis.and_then(literal))
}

fn show_time(ms: u64) -> String {
    if ms != 0 && ms.is_multiple_of(1_000) {
        format!("{} s", thousands(ms / 1_000))
    } else {
        format!("{} ms", thousands(ms))
    }
}

fn literal(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

/// Sums of products of literals and constants; one shift.
fn number(name: &str, expression: &str, all: &BTreeMap<String, String>) -> Option<u64> {
    if let Some((number_, shift)) = expression.split_once(" << ") {
        return Some(literal(number_)? << literal(shift)?);
    }
    let prefix = name.rsplit_once("::").map_or("", |(prefix, _)| prefix);
    let factor = |text: &str| -> Option<u64> {
        if text == "MAGIC.len()" {
            return Some(8);
        }
        literal(text).or_else(|| {
            let last = text.rsplit("::").next().unwrap_or(text);
            let near = format!("{prefix}::{last}");
            let far = || all.keys().find(|key| key.ends_with(&format!("::{last}"))).cloned();
            let found = if all.contains_key(&near) { near } else { far()? };
            number(&found, &all[&found], all)
        })
    };
    expression
        .split(" + ")
        .map(|term| term.split(" * ").map(factor).product::<Option<u64>>())
        .sum::<Option<u64>>()
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_table_has_every_constant_with_its_value() {
    let all = constants();
    let document = read("../../docs/protocol.md");
    let mut rows = BTreeMap::new();
    for line in document.lines().filter(|line| line.starts_with("| `") && line.contains("::")) {
        let cells = cells(line);
        let name = cells[0].trim_matches('`').to_owned();
        assert_eq!(cells.len(), 4, "{line}");
        assert!(cells[1..].iter().all(|cell| !cell.is_empty()), "{name} is not explained");
        assert!(rows.insert(name.clone(), cells[1].to_owned()).is_none(), "{name} is there twice");
    }
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(name, value)| match all.get(name) {
            None => Some(format!("{name} is not in the source")),
            Some(code) if shown(name, code, &all) != *value => {
                Some(format!("{name} is {} in the source, {value} in the table", shown(name, code, &all)))
            }
            Some(_) => None,
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let types: BTreeSet<String> = message_types().into_iter().map(|(name, _)| name).collect();
    let missing: Vec<&String> = all
        .keys()
        .filter(|name| !rows.contains_key(*name) && !types.contains(*name))
        .filter(|name| !NOT_IN_THE_TABLE.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    assert!(rows.len() > 100, "the table has been found: {} rows", rows.len());
}

/// Constants written in hexadecimal are types of messages: `prefix::NAME` and the type.
fn message_types() -> Vec<(String, String)> {
    constants().into_iter().filter(|(_, value)| value.starts_with("0x")).collect()
}

#[test]
fn every_message_type_is_in_the_documents_tables() {
    let document = read("../../docs/protocol.md");
    let rows: BTreeSet<(String, String)> = document
        .lines()
        .filter(|line| line.starts_with("| 0x"))
        .map(|line| (cells(line)[0].to_owned(), cells(line)[1].to_owned()))
        .collect();
    let types = message_types();
    for (name, kind) in &types {
        let last = name.rsplit("::").next().unwrap_or(name).replace('_', "-");
        assert!(rows.contains(&(kind.clone(), last.clone())), "{kind} {last}");
    }
    let known: BTreeSet<(String, String)> = types
        .iter()
        .map(|(name, kind)| (kind.clone(), name.rsplit("::").next().unwrap_or(name).replace('_', "-")))
        .collect();
    assert_eq!(rows, known, "the document has no others");
}

/// `file.rs: name_of_the_test` cells of the table of promises: file and test exist.
#[test]
fn every_test_that_the_document_names_exists() {
    let document = read("../../docs/protocol.md");
    let mut named = 0;
    for line in document.lines().filter(|line| line.starts_with("| ")) {
        for item in line.split("`").filter(|item| item.contains(".rs: ")) {
            let (file, tests) = item.split_once(".rs: ").expect("a file and its tests");
            let source = read(&format!("../{file}.rs"));
            for test in tests.split(", ") {
                assert!(source.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
                named += 1;
            }
        }
    }
    assert!(named > 50, "the table has been found: {named} tests");
}
