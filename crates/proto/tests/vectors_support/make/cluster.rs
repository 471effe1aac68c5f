//! `cluster.json`: everything that bases of a cluster write and send, protocol section 17.

use bowline_proto::{
    DeviceId, SecretKey,
    wire::{
        cluster::{BASE_PING, BASE_PONG, MAX_REPLACED, MAX_WANTS, PREFIX_LEN, tag},
        relay,
    },
};

use super::{ALICE, BASE, BOB, Maker, OTHER_BASE, addresses, flipped, many_addresses};
use crate::vectors_support::{
    codec::Family,
    file::{Hex, MessageFile, Sender, Tagging, Why},
    message::{HeaderFields, Message, RecordFields, WantFields},
};

const INCARNATION: [u8; 8] = [0x1c, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07];
const BOOT: [u8; 8] = [0xb0, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07];
const NONCE: [u8; 8] = [0x90, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07];
/// Of the base that receives.
const KEY: [u8; 16] = *b"0123456789abcdef";
const OTHER_KEY: [u8; 16] = *b"0123456789abcdeg";
/// Header of a message on a base's subject: type, base ID, incarnation, number.
const HEADER: usize = 1 + 14 + 8 + 8;

pub(super) fn file() -> MessageFile {
    let mut m = Maker::new(
        Family::Cluster,
        &[
            "bowline protocol 1, between bases of one cluster: in their store, on their bus, and over UDP (types 0x40 to 0x42).",
            "Bytes are whole messages: type u8, body. `header` is what every message on a base's subject begins with.",
            "A `tag` over UDP is SipHash-2-4 under `key` (of the receiver's lease) over `tagged`, in network byte order: of BASE-DATA source_id, destination_id; of a ping or pong type, base_id, nonce.",
            "Without `tagging` a BASE-DATA took the bus: its tag is the sender's incarnation.",
        ],
    );
    leases(&mut m);
    records(&mut m);
    changes(&mut m);
    wants(&mut m);
    told(&mut m);
    answers(&mut m);
    data(&mut m);
    probes(&mut m);
    for kind in [0x00, 0x21, 0x43, 0x4f, 0x58, 0xff] {
        m.refused("a type that is no base's", Sender::Base, Why::UnknownType, &[kind; 60]);
    }
    m.refused("an empty message", Sender::Base, Why::Malformed, &[]);
    m.file
}

fn cut(m: &mut Maker, name: &str, bytes: &[u8]) {
    m.refused(name, Sender::Base, Why::Malformed, &bytes[..bytes.len() - 1]);
}

fn longer(m: &mut Maker, bytes: &[u8]) {
    m.tolerated("with bytes of a later version", &[bytes, &[1, 2, 3]].concat());
}

fn leases(m: &mut Maker) {
    let base_id = m.id(BASE);
    let lease = |connection, udp_addresses: Vec<_>| Message::Lease {
        base_id: base_id.clone(),
        incarnation: INCARNATION.into(),
        connection,
        key: KEY.into(),
        udp_addresses,
    };
    m.between_bases("takes data over the bus alone", lease(u32::MAX, vec![]), None);
    m.between_bases("four UDP addresses", lease(2, many_addresses(4)), None);
    let bytes = m.between_bases(
        "both families",
        lease(1, addresses(&["192.0.2.1:4477", "[2001:db8::1]:4477"])),
        None,
    );
    longer(m, &bytes);
    cut(m, "a lease that ends within its last address", &bytes);
    m.refused("a lease of version 2", Sender::Base, Why::Malformed, &[&[bytes[0], 2], &bytes[2..]].concat());
    let front = 2 + 14 + 8 + 4 + 16;
    let five = [&bytes[..front], &[5], &[0; 5 * 18]].concat();
    m.refused("a lease with five UDP addresses", Sender::Base, Why::Malformed, &five);
}

fn record(m: &Maker, replaced: usize) -> RecordFields {
    RecordFields {
        base_id: m.id(BASE),
        incarnation: INCARNATION.into(),
        boot_id: BOOT.into(),
        attempt: 7,
        replaced: (0..replaced).map(|n| Hex::from([n as u8; 8])).collect(),
    }
}

fn records(m: &mut Maker) {
    m.between_bases("no boot was replaced", Message::Record(record(m, 0)), None);
    let bytes = m.between_bases("four boots were replaced", Message::Record(record(m, MAX_REPLACED)), None);
    longer(m, &bytes);
    cut(m, "a record that ends within its last boot", &bytes);
    let front = 1 + 14 + 8 + 8 + 4;
    let five = [&bytes[..front], &[5], &[0; 5 * 8]].concat();
    m.refused("a record with five replaced boots", Sender::Base, Why::Malformed, &five);
}

fn changes(m: &mut Maker) {
    let device_id = m.id(ALICE);
    let change = |revision, record| Message::Change { device_id: device_id.clone(), revision, record };
    let bytes = m.between_bases("the entry is gone", change(u64::MAX, None), None);
    longer(m, &bytes);
    cut(m, "a change that does not say whether there is an entry", &bytes);
    let bytes = m.between_bases("the device is there", change(8, Some(record(m, 1))), None);
    cut(m, "a change that ends within its entry", &bytes);
}

fn header(m: &Maker, number: u64) -> HeaderFields {
    HeaderFields { base_id: m.id(BASE), incarnation: INCARNATION.into(), number }
}

fn wants(m: &mut Maker) {
    let want = |asker: u16, flags| {
        let mut id = [0x0a; 14];
        id[..2].copy_from_slice(&asker.to_be_bytes());
        let (revision, heard) = (3 + u64::from(asker), if flags == 1 { u64::MAX } else { 0 });
        WantFields { asker_id: id.into(), revision, about_id: [0x0b; 14].into(), heard, flags }
    };
    m.between_bases("nothing to state", Message::Wants { header: header(m, 1), wants: vec![] }, None);
    let each = Message::Wants { header: header(m, 2), wants: (0..4).map(|n| want(n, n as u8)).collect() };
    let bytes = m.between_bases("released, stands, released and stands, asked anew", each, None);
    let flags = HEADER + 2 + 14 + 8 + 14 + 8;
    let unknown = [&bytes[..flags], &[bytes[flags] | 0xfc], &bytes[flags + 1..]].concat();
    m.tolerated("unknown flags", &unknown);
    longer(m, &bytes);
    cut(m, "statements that end within the last of them", &bytes);
    let full = (0..MAX_WANTS as u16).map(|n| want(n, 1)).collect();
    let bytes =
        m.between_bases("256 statements", Message::Wants { header: header(m, u64::MAX), wants: full }, None);
    let count = (MAX_WANTS as u16 + 1).to_be_bytes();
    let over = [&bytes[..HEADER], &count, &bytes[HEADER + 2..], &[0; 45]].concat();
    m.refused("257 statements", Sender::Base, Why::Malformed, &over);
    m.refused("a message that ends within its header", Sender::Base, Why::Malformed, &bytes[..HEADER - 1]);
}

fn told(m: &mut Maker) {
    let message = |m: &Maker, flags: u8, reflexive: Vec<_>, own: Vec<_>| Message::Addresses {
        header: header(m, 5),
        to_id: m.id(ALICE),
        revision: if flags & 1 == 0 { u64::MAX } else { 9 },
        flags,
        about_id: m.id(BOB),
        introduction_key: if flags & 1 == 0 { [0; 16] } else { KEY }.into(),
        reflexive,
        own,
    };
    m.between_bases("it released the other", message(m, 0, vec![], vec![]), None);
    m.between_bases("it left", message(m, 2, vec![], vec![]), None);
    m.between_bases("it takes joined messages", message(m, 5, many_addresses(1), vec![]), None);
    m.between_bases(
        "as many addresses as there may be",
        message(m, 1, many_addresses(4), many_addresses(12)),
        None,
    );
    let one = message(m, 1, addresses(&["203.0.113.9:40000"]), addresses(&["192.168.1.5:4000"]));
    let bytes = m.between_bases("an address of each kind", one, None);
    longer(m, &bytes);
    let flags = HEADER + 14 + 8;
    m.tolerated("unknown flags", &[&bytes[..flags], &[0xf9], &bytes[flags + 1..]].concat());
    cut(m, "addresses that end within the last of them", &bytes);
    let lists = flags + 1 + 14 + 16;
    let five = [&bytes[..lists], &[5], &[0; 5 * 18], &[0]].concat();
    m.refused("five reflexive addresses", Sender::Base, Why::Malformed, &five);
    let thirteen = [&bytes[..lists], &[0, 13], &[0; 13 * 18]].concat();
    m.refused("thirteen own addresses", Sender::Base, Why::Malformed, &thirteen);
}

fn answers(m: &mut Maker) {
    for reason in [1, 2, 3, 0xff] {
        let (sender_id, destination_id) = (m.id(ALICE), m.id(BOB));
        let blocked = Message::Blocked { header: header(m, 6), sender_id, destination_id, reason };
        let bytes = m.between_bases(&format!("for reason {reason}"), blocked, None);
        if reason == 1 {
            longer(m, &bytes);
            cut(m, "a message that was blocked for no reason", &bytes);
        }
    }
    let (device_id, sender_id) = (m.id(BOB), m.id(ALICE));
    let not_here = Message::NotHere { header: header(m, 7), device_id, sender_id };
    let bytes = m.between_bases("of a device that has moved away", not_here, None);
    longer(m, &bytes);
    cut(m, "an ID that ends early", &bytes);
    let cloned = Message::Cloned { header: header(m, 8), device_id: m.id(ALICE) };
    let bytes = m.between_bases("two devices have one key", cloned, None);
    longer(m, &bytes);
    cut(m, "an ID that ends early", &bytes);
}

fn id(name: &Hex) -> DeviceId {
    DeviceId::from_bytes(name.array())
}

fn data(m: &mut Maker) {
    let (source_id, destination_id) = (m.id(ALICE), m.id(BOB));
    let tagged = Hex([source_id.0.clone(), destination_id.0.clone()].concat());
    let under = |key: [u8; 16]| Tagging { key: key.into(), tagged: tagged.clone() };
    let made = tag(&KEY, id(&source_id), id(&destination_id));
    let message = |data: &[u8], tag: [u8; 8]| Message::BaseData {
        destination_id: destination_id.clone(),
        tag: tag.into(),
        carried: relay::RECV_DATA,
        source_id: source_id.clone(),
        data: data.into(),
    };
    let joined = [&4u16.to_be_bytes()[..], b"one.two.four"].concat();
    let mut carries_joined = message(&joined, made);
    if let Message::BaseData { carried, .. } = &mut carries_joined {
        *carried = relay::RECV_JOINED;
    }
    m.between_bases("over UDP, joined messages", carries_joined, Some(under(KEY)));
    m.between_bases("over UDP, empty", message(&[], made), Some(under(KEY)));
    m.between_bases("over UDP, 1,200 bytes", message(&[0xda; 1_200], made), Some(under(KEY)));
    let bytes = m.between_bases("over UDP", message(b"hello", made), Some(under(KEY)));
    m.refused_tag("for a base with another key", &bytes, under(OTHER_KEY));
    m.refused_tag("another tag", &flipped(&bytes, 15, 0), under(KEY));
    let other = SecretKey::from_seed(&[0x55; 32]).device_id();
    let forged = [&bytes[..PREFIX_LEN], &relay::header(relay::RECV_DATA, other), &b"hello"[..]].concat();
    let tagged_of_other = Hex([other.as_bytes().to_vec(), destination_id.0.clone()].concat());
    m.refused_tag("from another device", &forged, Tagging { key: KEY.into(), tagged: tagged_of_other });
    let bytes = m.between_bases("over the bus", message(b"hello", INCARNATION), None);
    let front = PREFIX_LEN + relay::HEADER_LEN;
    m.refused("data whose source ends early", Sender::Base, Why::Malformed, &bytes[..front - 1]);
    m.refused("data that carries nothing", Sender::Base, Why::Malformed, &bytes[..PREFIX_LEN]);
    m.refused("data whose tag ends early", Sender::Base, Why::Malformed, &bytes[..PREFIX_LEN - 1]);
    let sent = [&bytes[..PREFIX_LEN], &[relay::SEND_DATA], &bytes[PREFIX_LEN + 1..]].concat();
    m.refused("data that carries a SEND-DATA", Sender::Base, Why::Malformed, &sent);
}

fn probes(m: &mut Maker) {
    let base_id = m.id(OTHER_BASE);
    for (kind, name) in [(BASE_PING, "do you hear me?"), (BASE_PONG, "I do")] {
        let tagged = Hex([&[kind], &base_id.0[..], &NONCE].concat());
        let under = |key: [u8; 16]| Tagging { key: key.into(), tagged: tagged.clone() };
        let fields = |tag: Hex| match kind {
            BASE_PING => Message::BasePing { tag, base_id: base_id.clone(), nonce: NONCE.into() },
            _ => Message::BasePong { tag, base_id: base_id.clone(), nonce: NONCE.into() },
        };
        // The encoder makes the tag: it is taken from what it wrote.
        let made = crate::vectors_support::codec::encode_cluster(&fields(Hex(vec![])), Some(&under(KEY)));
        let bytes = m.between_bases(name, fields(made[1..9].into()), Some(under(KEY)));
        m.tolerated("a tail that is not zero", &flipped(&bytes, bytes.len() - 1, 0));
        m.refused_tag("for a base with another key", &bytes, under(OTHER_KEY));
        m.refused_tag("another tag", &flipped(&bytes, 1, 7), under(KEY));
        let mut nonce = tagged.clone();
        *nonce.0.last_mut().expect("a nonce") ^= 1;
        m.refused_tag("another nonce", &flipped(&bytes, 30, 0), Tagging { key: KEY.into(), tagged: nonce });
        cut(m, "one byte short", &bytes);
        m.refused("one byte more", Sender::Base, Why::Malformed, &[&bytes[..], &[0]].concat());
    }
    let ping = m.file.messages.iter().rfind(|v| v.bytes.0[0] == BASE_PING).expect("a ping").clone();
    let tagged = Hex([&[BASE_PONG], &base_id.0[..], &NONCE].concat());
    let turned = [&[BASE_PONG], &ping.bytes.0[1..]].concat();
    m.refused_tag("a ping that was made a pong", &turned, Tagging { key: KEY.into(), tagged });
}
