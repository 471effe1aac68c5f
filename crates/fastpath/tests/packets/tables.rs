//! What the program finds in its tables counts only as a whole: an element may become another's while a core reads it, or writes to it.

use aya::maps::{HashMap, Map, MapData, loaded_maps};
use bowline_lab::in_network_as_root;
use bowline_proto::{DeviceId, base::Follower as _};

use crate::{Family, World, relayed, to};

type Table<const KEY: usize, const VALUE: usize> = HashMap<MapData, [u8; KEY], [u8; VALUE]>;

const WORD: usize = 8;
/// What the base writes of a leg, its seal included; the rest is the way that the program has found.
const LEG_WORDS: std::ops::Range<usize> = 0..7;
const WAY_WORDS: std::ops::Range<usize> = 7..11;
/// The same of a source. When it was heard comes next.
const SOURCE_WORDS: std::ops::Range<usize> = 0..4;
const HEARD: usize = 4 * WORD + 7;

/// The table of this name that has this key: other tests have tables, too.
fn table<const KEY: usize, const VALUE: usize>(name: &str, key: [u8; KEY]) -> Table<KEY, VALUE> {
    let named = loaded_maps().filter_map(Result::ok).filter(|map| map.name_as_str() == Some(name));
    let mut tables = named.filter_map(|map| {
        let table = Table::try_from(Map::HashMap(MapData::from_id(map.id()).ok()?)).ok()?;
        table.get(&key, 0).ok().map(|_| table)
    });
    tables.next().unwrap_or_else(|| panic!("no {name} with that key"))
}

fn key_of(device: DeviceId) -> [u8; 16] {
    let mut key = [0; 16];
    key[1..15].copy_from_slice(device.as_bytes());
    key
}

/// A value with one word of another.
fn torn<const N: usize>(mut value: [u8; N], other: &[u8; N], word: usize) -> [u8; N] {
    let at = word * WORD..(word + 1) * WORD;
    value[at.clone()].copy_from_slice(&other[at]);
    value
}

/// Devices that no other test has.
fn world(lab: &bowline_lab::Lab, number: u8) -> World {
    let mut world = World::new(lab, Family::V6);
    let World { a, b, fast_path, .. } = &mut world;
    for (device, end) in [(a, 1), (b, 2)] {
        fast_path.placed(device.id, None);
        device.id = DeviceId::of_public_key(&[number, end].repeat(16).try_into().unwrap());
        fast_path.seized(&device.source(), device.id, None);
        fast_path.placed(device.id, Some(device.leg()));
    }
    world
}

#[test]
fn a_leg_that_has_become_another_s_in_part_leads_nowhere() {
    in_network_as_root(|lab| {
        let world = world(lab, 51);
        let key = key_of(world.b.id);
        world.goes_on(&to(&world.b, 10));
        let mut legs = table::<16, 88>("legs", key);
        let own = legs.get(&key, 0).unwrap();
        let other = legs.get(&key_of(world.a.id), 0).unwrap();
        let differs = |word: usize| own[word * WORD..][..WORD] != other[word * WORD..][..WORD];
        for word in LEG_WORDS.filter(|&word| differs(word)) {
            for (value, rest) in [(own, &other), (other, &own)] {
                legs.insert(key, torn(value, rest, word), 0).unwrap();
                world.comes_to_the_base(&to(&world.b, 10));
            }
        }
        legs.insert(key, other, 0).unwrap();
        world.comes_to_the_base(&to(&world.b, 10));
        legs.insert(key, own, 0).unwrap();
        world.goes_on(&to(&world.b, 10));
    });
}

#[test]
fn a_way_that_has_become_another_s_is_looked_up_anew() {
    in_network_as_root(|lab| {
        let world = world(lab, 52);
        let key = key_of(world.b.id);
        let mut legs = table::<16, 88>("legs", key);
        // That of a message to the sender himself.
        world.a.send(&to(&world.a, 10));
        assert_eq!(world.a.receive(), relayed(&to(&world.a, 10), world.a.id));
        world.goes_on(&to(&world.b, 10));
        let own = legs.get(&key, 0).unwrap();
        let other = legs.get(&key_of(world.a.id), 0).unwrap();
        let all = WAY_WORDS.fold(own, |value, word| torn(value, &other, word));
        for value in WAY_WORDS.map(|word| torn(own, &other, word)).chain([all]) {
            legs.insert(key, value, 0).unwrap();
            world.goes_on(&to(&world.b, 10));
        }
    });
}

#[test]
fn a_source_that_has_become_another_s_in_part_is_nobody() {
    in_network_as_root(|lab| {
        let world = world(lab, 53);
        let source = world.a.source();
        let key = *source.as_bytes();
        world.goes_on(&to(&world.b, 10));
        let mut sources = table::<24, 48>("sources", key);
        let own = sources.get(&key, 0).unwrap();
        let other = sources.get(world.b.source().as_bytes(), 0).unwrap();
        let differs = |word: usize| own[word * WORD..][..WORD] != other[word * WORD..][..WORD];
        for word in SOURCE_WORDS.filter(|&word| differs(word)) {
            sources.insert(key, torn(own, &other, word), 0).unwrap();
            world.comes_to_the_base(&to(&world.b, 10));
        }
        sources.insert(key, other, 0).unwrap();
        world.comes_to_the_base(&to(&world.b, 10));
        // Written by a core that thought it was another's.
        sources.insert(key, own, 0).unwrap();
        assert!(world.fast_path.heard(&source).is_some());
        let mut strange = own;
        strange[HEARD] ^= 1;
        sources.insert(key, strange, 0).unwrap();
        assert_eq!(world.fast_path.heard(&source), None);
    });
}
