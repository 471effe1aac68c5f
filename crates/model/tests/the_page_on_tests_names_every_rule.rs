//! The tables in `docs/testing.md` that say which property fails without which rule.

use bowline_model::{handshake, nat, registration};

#[test]
fn every_rule_stands_in_its_table_with_the_property_that_fails_without_it() {
    let page = include_str!("../../../docs/testing.md");
    let rows = handshake::Weakening::ALL.map(|rule| (format!("{rule:?}"), rule.breaks())).into_iter();
    let rows = rows.chain(nat::Weakening::ALL.map(|rule| (format!("{rule:?}"), rule.breaks())));
    let rows = rows.chain(registration::Weakening::ALL.map(|rule| (format!("{rule:?}"), rule.breaks())));
    for (rule, property) in rows {
        assert!(page.contains(&format!("\n| `{rule}` | {property} |\n")), "{rule}: {property}");
    }
}
