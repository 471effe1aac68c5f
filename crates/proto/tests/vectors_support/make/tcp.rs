//! `tcp.json`: every frame of protocol section 4.

use bowline_proto::wire::{addr, tcp};

use super::{
    ALICE, BASE, BOB, COOKIE, Maker, OTHER_BASE, OTHER_COOKIE, Sign, addresses, flipped, frame, longer,
    many_addresses,
};
use crate::vectors_support::{
    codec::Family,
    file::{MessageFile, Sender, Why},
    message::Message,
};

const REGISTER: Sign = Sign {
    context: "register",
    signer: ALICE,
    base: Some(BASE),
    cookie: Some(COOKIE),
    udp_index: None,
    introduction_key: None,
};

pub(super) fn file() -> MessageFile {
    let mut m = Maker::new(
        Family::Tcp,
        &[
            "bowline protocol 1, host and base over TCP.",
            "Bytes are whole frames: length u16 of type and body, type u8, body. All numbers are big-endian.",
            "A REGISTER's signature is over `signed` = \"bowline/1 register\" 00, base_id, cookie, type, body without signature.",
        ],
    );
    session(&mut m);
    register(&mut m);
    addresses_of_peers(&mut m);
    rest(&mut m);
    malformed(&mut m);
    m.file
}

fn session(m: &mut Maker) {
    let bytes = m.plain(
        "the first frame of a connection",
        Sender::Host,
        Message::GetCookie { highest_version: 1, capabilities: 0 },
    );
    m.tolerated("more bytes than this version knows", &longer(&bytes, b"later"));
    m.refused("another service", Sender::Host, Why::Malformed, &flipped(&bytes, 3, 0));
    m.refused("version 0", Sender::Host, Why::Malformed, &frame(tcp::GET_COOKIE, b"bowline\0\0\0\0\0"));
    m.plain(
        "a later version and unknown capabilities",
        Sender::Host,
        Message::GetCookie { highest_version: 255, capabilities: 0x8000_0001 },
    );

    let (base_id, other) = (m.id(BASE), m.id(OTHER_BASE));
    let hello = |cluster_id, capabilities| Message::BaseHello {
        version: 1,
        cookie: COOKIE.into(),
        base_id: base_id.clone(),
        cluster_id,
        capabilities,
    };
    let bytes = m.plain("a base that stands alone", Sender::Base, hello(base_id.clone(), 0));
    m.tolerated("more bytes than this version knows", &longer(&bytes, &[0]));
    m.plain("a base of a cluster", Sender::Base, hello(other, 0xffff_ffff));

    let registered = |seen: &str, keepalive_seconds, udp_addresses| Message::Registered {
        seen: seen.parse().expect("an address"),
        keepalive_seconds,
        udp_addresses,
    };
    let bytes = m.plain(
        "two UDP ports at the IP that was reached",
        Sender::Base,
        registered("192.0.2.7:5123", 25, addresses(&["[::]:4477", "[::]:4479"])),
    );
    m.tolerated("more bytes than this version knows", &longer(&bytes, &[9; 40]));
    m.plain("no UDP, seen over IPv6", Sender::Base, registered("[2001:db8::7]:65535", 10, vec![]));
    m.plain("four UDP addresses", Sender::Base, registered("0.0.0.0:0", 25, many_addresses(4)));
}

fn register(m: &mut Maker) {
    let (device_id, public_key) = (m.id(ALICE), m.public_key(ALICE));
    let register = |attempt, capabilities, agent: &str| Message::Register {
        device_id: device_id.clone(),
        public_key: public_key.clone(),
        boot_id: [0xb0, 0, 1, 2, 3, 4, 5, 6].into(),
        attempt,
        capabilities,
        agent: agent.to_owned(),
    };
    m.signed(
        "the longest agent, of two-byte characters",
        Sender::Host,
        register(u32::MAX, 1, &"é".repeat(127)),
        &REGISTER,
    );
    m.signed("no agent", Sender::Host, register(2, 0, ""), &REGISTER);
    let bytes = m.signed("a usual registration", Sender::Host, register(1, 0, "bowline/0.1.0"), &REGISTER);

    let bob = m.id(BOB);
    m.refused_signature("for another base", &bytes, |s| s.base_id = Some(bob.clone()));
    m.refused_signature("under another cookie", &bytes, |s| s.cookie = Some(OTHER_COOKIE.into()));
    m.refused_signature("a flipped bit of the attempt", &flipped(&bytes, 2 + 1 + 14 + 32 + 8 + 3, 0), |_| ());
    m.refused_signature(
        "a flipped bit of the capabilities",
        &flipped(&bytes, 2 + 1 + 14 + 32 + 8 + 4, 7),
        |_| (),
    );
    m.refused_signature("a flipped bit of the signature", &flipped(&bytes, bytes.len() - 1, 0), |_| ());
    m.refused_signature("the ID of another device", &[&bytes[..3], &bob.0, &bytes[17..]].concat(), |_| ());
    // Later versions may append fields; they stand before the signature, which covers them.
    let unsigned_extra = [&bytes[3..bytes.len() - 64], b"later", &bytes[bytes.len() - 64..]].concat();
    m.refused_signature("bytes put in before the signature", &frame(tcp::REGISTER, &unsigned_extra), |_| ());
    m.refused_signature("bytes put in after the signature", &longer(&bytes, &[0]), |_| ());
    m.refused(
        "a frame that ends before its signature",
        Sender::Host,
        Why::Malformed,
        &frame(tcp::REGISTER, &[7; 63]),
    );
    let mut control = bytes.clone();
    control[2 + 1 + 14 + 32 + 8 + 4 + 4 + 1] = b'\n';
    m.refused("a control character in the agent", Sender::Host, Why::Malformed, &control);
    let cut = [&bytes[3..bytes.len() - 65], &bytes[bytes.len() - 64..]].concat();
    m.refused("an agent longer than the frame", Sender::Host, Why::Malformed, &frame(tcp::REGISTER, &cut));
}

fn addresses_of_peers(m: &mut Maker) {
    let info = |number, own_addresses| Message::Info {
        number,
        introduction_master_key: [0x5a; 16].into(),
        own_addresses,
    };
    m.plain("no own addresses", Sender::Host, info(1, vec![]));
    m.plain("twelve own addresses", Sender::Host, info(u64::MAX, many_addresses(12)));
    let bytes = m.plain(
        "IPv4 and IPv6",
        Sender::Host,
        info(7, addresses(&["10.0.0.2:4000", "[fe80::1]:4001", "[2001:db8::2]:4001"])),
    );
    m.tolerated("more bytes than this version knows", &longer(&bytes, &[1, 2, 3]));
    m.refused("thirteen addresses", Sender::Host, Why::Malformed, &over_limit(tcp::INFO, 24, 13));
    m.refused(
        "a list that ends early",
        Sender::Host,
        Why::Malformed,
        &frame(tcp::INFO, &bytes[3..bytes.len() - 1]),
    );
    m.plain("the answer to INFO", Sender::Base, Message::Pong { number: 7 });

    let device_id = m.id(BOB);
    m.plain("I want to talk with Bob", Sender::Host, Message::RequestInfo { device_id: device_id.clone() });
    m.plain("no longer", Sender::Host, Message::ReleaseInfo { device_id: device_id.clone() });
    m.plain("Bob asks for you", Sender::Base, Message::Wanted { device_id: device_id.clone() });
    let told = |flags, introduction_key: [u8; 16], reflexive, own| Message::DeviceAddresses {
        device_id: device_id.clone(),
        flags,
        introduction_key: introduction_key.into(),
        reflexive,
        own,
    };
    m.plain("gone, or it has released you", Sender::Base, told(0, [0; 16], vec![], vec![]));
    m.plain("online, and takes joined messages", Sender::Base, told(3, [0xab; 16], vec![], vec![]));
    m.plain("full lists", Sender::Base, told(1, [0xab; 16], many_addresses(4), many_addresses(12)));
    let bytes = m.plain(
        "online",
        Sender::Base,
        told(
            1,
            [0x77; 16],
            addresses(&["203.0.113.9:40000"]),
            addresses(&["192.168.1.5:4000", "[2001:db8::5]:4000"]),
        ),
    );
    let mut flags = bytes.clone();
    flags[2 + 1 + 14..][..4].copy_from_slice(&[0xff, 0xff, 0xff, 0xfd]);
    m.tolerated("unknown flags", &flags);
    let mut zeros = frame(tcp::DEVICE_ADDRESSES, &[&bytes[3..37], &[5], &[0; 5 * 18], &[0]].concat());
    m.refused("five reflexive addresses", Sender::Base, Why::Malformed, &zeros);
    zeros = frame(tcp::DEVICE_ADDRESSES, &[&bytes[3..37], &[0, 13], &[0; 13 * 18]].concat());
    m.refused("thirteen own addresses", Sender::Base, Why::Malformed, &zeros);
}

fn rest(m: &mut Maker) {
    let device_id = m.id(BOB);
    for (code, text) in [
        (1, "malformed"),
        (2, "version"),
        (3, "signature, or a key that does not make the ID"),
        (4, "not allowed"),
        (5, "a limit of this source"),
        (6, "busy"),
        (7, "draining"),
        (8, "replaced"),
        (9, "cloned identity"),
        (10, "silent"),
        (200, "of a later version"),
    ] {
        let error =
            Message::Error { code, retry_after_seconds: 30 * u16::from(code == 6), text: text.to_owned() };
        m.plain(&format!("error {code}"), Sender::Base, error);
    }
    for (code, text) in
        [(1, "another device uses this key"), (2, "a limit of mine holds you back"), (99, "π")]
    {
        m.plain(&format!("notice {code}"), Sender::Base, Message::Notice { code, text: text.to_owned() });
    }
    m.refused(
        "a text with a delete character",
        Sender::Base,
        Why::Malformed,
        &frame(tcp::NOTICE, b"\x01\x03a\x7fb"),
    );
    m.refused("a text with U+0085", Sender::Base, Why::Malformed, &frame(tcp::NOTICE, b"\x01\x02\xc2\x85"));
    m.refused("a text that is not UTF-8", Sender::Base, Why::Malformed, &frame(tcp::NOTICE, b"\x01\x01\xff"));
    for reason in [1, 2, 3, 4, 77] {
        let message = Message::Unreachable { device_id: device_id.clone(), reason };
        m.plain(&format!("unreachable, reason {reason}"), Sender::Base, message);
    }
    m.plain("leave within half a minute", Sender::Base, Message::GoAway { seconds: 30 });
    let bytes = m.plain("forget me now", Sender::Host, Message::Leave {});
    m.tolerated("more bytes than this version knows", &longer(&bytes, &[0; 3]));
    for data in [vec![], b"hello".to_vec(), b"\x0bbowline\x01 is not escaped here".to_vec(), vec![0xda; 300]]
    {
        let name = format!("a message of {} bytes", data.len());
        m.plain(
            &name,
            Sender::Host,
            Message::SendData { destination_id: device_id.clone(), data: data.as_slice().into() },
        );
        m.plain(
            &name,
            Sender::Base,
            Message::RecvData { source_id: device_id.clone(), data: data.as_slice().into() },
        );
    }
    let (destination_id, source_id, data) = (device_id.clone(), device_id.clone(), b"first1234501");
    let name = "three messages in one, the last of which is shorter";
    m.plain(name, Sender::Host, Message::SendJoined { destination_id, size: 5, data: data[..].into() });
    m.plain(name, Sender::Base, Message::RecvJoined { source_id, size: 5, data: data[..].into() });
    m.refused("an ID that ends early", Sender::Host, Why::Malformed, &frame(0x20, &[1; 13]));
    m.refused("an ID that ends early", Sender::Base, Why::Malformed, &frame(0x21, &[1; 13]));
}

fn malformed(m: &mut Maker) {
    m.refused("an empty frame", Sender::Host, Why::Malformed, &[0, 0]);
    m.refused("a frame longer than 16,384", Sender::Host, Why::Malformed, &[0x40, 0x01, 0x10]);
    m.refused("a PONG from a host", Sender::Host, Why::WrongSide, &frame(tcp::PONG, &[0; 8]));
    m.refused("RECV-DATA from a host", Sender::Host, Why::WrongSide, &frame(0x21, &[0; 20]));
    m.refused("an INFO from a base", Sender::Base, Why::WrongSide, &frame(tcp::INFO, &[0; 25]));
    m.refused("SEND-DATA from a base", Sender::Base, Why::WrongSide, &frame(0x20, &[0; 20]));
    for kind in [0x04, 0x1a, 0x24, 0x30, 0xff] {
        m.refused("a type of a later version", Sender::Host, Why::UnknownType, &frame(kind, b"?"));
        m.refused("a type of a later version", Sender::Base, Why::UnknownType, &frame(kind, b"?"));
    }
}

fn over_limit(kind: u8, front: usize, count: u8) -> Vec<u8> {
    frame(kind, &[vec![0; front], vec![count], vec![0; usize::from(count) * addr::ADDR_LEN]].concat())
}
