//! `udp.json`: every datagram of protocol section 5.

use bowline_proto::wire::udp::{NAT_INIT_MIN_LEN, NAT_OK_LEN, PADDED_LEN};

use super::{ALICE, BASE, BOB, COOKIE, Maker, OTHER_BASE, Sign, addresses, flipped, many_addresses, raised};
use crate::vectors_support::{
    codec::Family,
    file::{MessageFile, Sender, Why},
    message::Message,
};

const CHALLENGE: [u8; 8] = [0xc4, 0xa1, 0x1e, 0x49, 0xe0, 0x00, 0x00, 0x01];

fn sign(udp_index: u8) -> Sign {
    Sign {
        context: "nat-init",
        signer: ALICE,
        base: Some(BASE),
        udp_index: Some(udp_index),
        ..Sign::default()
    }
}

pub(super) fn file() -> MessageFile {
    let mut m = Maker::new(
        Family::Udp,
        &[
            "bowline protocol 1, host and base over UDP.",
            "Bytes are whole datagrams: type u8, body. `padding` counts the bytes after the last field; senders use zeros.",
            "A NAT-INIT's signature is over `signed` = \"bowline/1 nat-init\" 00, base_id, udp_index, type, body without signature and padding.",
            "A challenge is the base's own secret function of cookie, index and source address; here it is any 8 bytes.",
        ],
    );
    nat_init(&mut m);
    answers(&mut m);
    mappings(&mut m);
    relayed(&mut m);
    m.file
}

fn nat_init(m: &mut Maker) {
    let init = |seq, own_addresses: Vec<_>, padded: bool| {
        let padding = if padded { PADDED_LEN - NAT_INIT_MIN_LEN - 18 * own_addresses.len() } else { 0 };
        Message::NatInit { cookie: COOKIE.into(), seq, own_addresses, padding }
    };
    m.signed("no own addresses, bare", Sender::Host, init(1, vec![], false), &sign(0));
    m.signed("twelve own addresses, bare", Sender::Host, init(u64::MAX, many_addresses(12), false), &sign(3));
    let own = addresses(&["192.168.1.5:4000", "[2001:db8::5]:4000"]);
    let bytes = m.signed("padded to 1,215 bytes", Sender::Host, init(2, own.clone(), true), &sign(1));
    m.tolerated("padding is not signed", &[&bytes[..bytes.len() - 2], &[1, 2]].concat());
    let bytes = m.signed("bare", Sender::Host, init(3, own, false), &sign(1));
    let other = m.id(OTHER_BASE);
    m.refused_signature("for another UDP address of the base", &bytes, |s| s.udp_index = Some(0));
    m.refused_signature("for another base", &bytes, |s| s.base_id = Some(other));
    m.refused_signature("by another device", &bytes, |s| s.signer = BOB.to_owned());
    m.refused_signature("another seq", &flipped(&bytes, 16, 0), |_| ());
    m.refused_signature("another cookie", &flipped(&bytes, 1, 7), |_| ());
    m.refused_signature("another own address", &flipped(&bytes, 18 + 15, 2), |_| ());
    let (front, signature) = bytes.split_at(bytes.len() - 64);
    let raised = raised(signature.try_into().expect("64 bytes"));
    m.refused_signature("S raised by the group order", &[front, &raised].concat(), |_| ());
    m.refused("ends within its signature", Sender::Host, Why::Malformed, &bytes[..bytes.len() - 1]);
    let thirteen = [&bytes[..17], &[13], &[0; 13 * 18 + 64]].concat();
    m.refused("thirteen own addresses", Sender::Host, Why::Malformed, &thirteen);
}

fn answers(m: &mut Maker) {
    let ok = |seq, flags, seen: &str, padding| Message::NatOk {
        cookie: COOKIE.into(),
        seq,
        challenge: CHALLENGE.into(),
        flags,
        seen: seen.parse().expect("an address"),
        padding,
    };
    m.plain(
        "answers a padded NAT-INIT",
        Sender::Base,
        ok(2, 0, "203.0.113.9:40000", PADDED_LEN - NAT_OK_LEN),
    );
    m.plain("not confirmed yet, over IPv6", Sender::Base, ok(3, 0, "[2001:db8::9]:40000", 0));
    let bytes = m.plain("this address is confirmed", Sender::Base, ok(3, 1, "203.0.113.9:40000", 0));
    m.tolerated("unknown flags", &[&bytes[..25], &[0xff], &bytes[26..]].concat());
    m.refused("ends within its address", Sender::Base, Why::Malformed, &bytes[..NAT_OK_LEN - 1]);

    let confirm = Message::NatConfirm { cookie: COOKIE.into(), seq: 3, challenge: CHALLENGE.into() };
    let bytes = m.plain("as long as the NAT-OK that answers it", Sender::Host, confirm);
    m.refused("one byte short", Sender::Host, Why::Malformed, &bytes[..NAT_OK_LEN - 1]);
    m.refused("one byte more", Sender::Host, Why::Malformed, &[&bytes[..], &[0]].concat());
    m.refused("a tail that is not zero", Sender::Host, Why::Malformed, &flipped(&bytes, NAT_OK_LEN - 1, 0));

    let bytes = m.plain("I cannot place you", Sender::Base, Message::NatUnknown {});
    m.refused("one byte more", Sender::Base, Why::Malformed, &[bytes[0], 0]);
}

fn mappings(m: &mut Maker) {
    let address = "203.0.113.9:40123".parse().expect("an address");
    let check = Message::MapCheck { cookie: COOKIE.into(), nonce: CHALLENGE.into(), address };
    let bytes = m.plain("a port that a router has mapped", Sender::Host, check);
    m.refused("one byte short", Sender::Host, Why::Malformed, &bytes[..bytes.len() - 1]);
    m.refused("one byte more", Sender::Host, Why::Malformed, &[&bytes[..], &[0]].concat());
    let bytes = m.plain(
        "sent to the address that was asked about",
        Sender::Base,
        Message::MapOk { nonce: CHALLENGE.into() },
    );
    m.refused("one byte short", Sender::Base, Why::Malformed, &bytes[..bytes.len() - 1]);
    m.refused("one byte more", Sender::Base, Why::Malformed, &[&bytes[..], &[0]].concat());
}

fn relayed(m: &mut Maker) {
    let id = m.id(BOB);
    for data in
        [vec![], b"hello".to_vec(), b"\x0bbowline\x01 is not escaped here".to_vec(), vec![0xda; 1_200]]
    {
        let name = format!("a message of {} bytes", data.len());
        let data: crate::vectors_support::file::Hex = data.into();
        m.plain(&name, Sender::Host, Message::SendData { destination_id: id.clone(), data: data.clone() });
        m.plain(&name, Sender::Base, Message::RecvData { source_id: id.clone(), data });
    }
    for (name, size, data) in [("three messages in one", 4, &b"one.two.four"[..]), ("64 in one", 1, &[7; 64])]
    {
        let (destination_id, source_id) = (id.clone(), id.clone());
        m.plain(name, Sender::Host, Message::SendJoined { destination_id, size, data: data.into() });
        m.plain(name, Sender::Base, Message::RecvJoined { source_id, size, data: data.into() });
    }
    let joined = |size: u16, data: &[u8]| [&[0x23], &id.0[..], &size.to_be_bytes(), data].concat();
    m.refused("65 in one", Sender::Base, Why::Malformed, &joined(1, &[7; 65]));
    m.refused("none in one", Sender::Base, Why::Malformed, &joined(1, &[]));
    m.refused("messages of no size in one", Sender::Base, Why::Malformed, &joined(0, b"data"));
    m.refused("an ID that ends early", Sender::Host, Why::Malformed, &[0x22; 14]);
    m.refused("a size that ends early", Sender::Base, Why::Malformed, &[0x23; 16]);
    m.refused("an ID that ends early", Sender::Host, Why::Malformed, &[0x20; 14]);
    m.refused("an ID that ends early", Sender::Base, Why::Malformed, &[0x21; 14]);
    m.refused("an empty datagram", Sender::Host, Why::Malformed, &[]);
    m.refused("an empty datagram", Sender::Base, Why::Malformed, &[]);
    for kind in [0x31, 0x33, 0x35, 0x21, 0x23] {
        m.refused("a base's type from a host", Sender::Host, Why::WrongSide, &[kind; 60]);
    }
    for kind in [0x30, 0x32, 0x34, 0x20, 0x22] {
        m.refused("a host's type from a base", Sender::Base, Why::WrongSide, &[kind; 60]);
    }
    for kind in [0x00, 0x10, 0x36, 0xff] {
        m.refused("a type that is not UDP's", Sender::Host, Why::UnknownType, &[kind; 60]);
        m.refused("a type that is not UDP's", Sender::Base, Why::UnknownType, &[kind; 60]);
    }
}
