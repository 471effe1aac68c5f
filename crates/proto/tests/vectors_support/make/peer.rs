//! `peer.json`: every datagram of protocol section 6.

use bowline_proto::wire::peer::{
    HELLO_LEN, IntroductionKey, MAGIC, PADDED_HELLO_LEN, SAYING_HELLO_LEN, joined_header,
};

use super::{ALICE, BOB, Maker, Sign, flipped};
use crate::vectors_support::{
    codec::Family,
    file::{Hex, MessageFile, Sender, Why},
    message::Message,
};

const MASTER_KEY: [u8; 16] = [0x5a; 16];
const TOKEN: [u8; 16] = *b"token of 16 byte";

pub(super) fn file() -> MessageFile {
    let mut m = Maker::new(
        Family::Peer,
        &[
            "bowline protocol 1, host and host.",
            "Bytes are whole datagrams. DATA is the caller's bytes and nothing else; all other messages begin with 0b 62 6f 77 6c 69 6e 65 and a type u8.",
            "JOINED-DATA is several messages of `size` bytes, one after the other; the last may be shorter.",
            "A HELLO's `takes` is the byte behind its signature, null where it ends there (bit 0: its sender takes JOINED-DATA); padding follows it. Neither is signed.",
            "A HELLO's introduction is SipHash-2-4 with introduction_key over everything before it, its eight bytes least significant first; zero where the key is.",
            "Signatures are over `signed` = \"bowline/1 hello\" (or hello-reply) 00, magic, type, body without signature and padding.",
        ],
    );
    data(&mut m);
    joined(&mut m);
    hello(&mut m);
    reply(&mut m);
    let bytes =
        m.plain("data from your address, and I do not know you", Sender::Peer, Message::UnknownSource {});
    m.plain("somebody guesses ports, and this way is open", Sender::Peer, Message::Knock {});
    m.refused("one byte more", Sender::Peer, Why::Malformed, &[&bytes[..], &[0]].concat());
    for kind in [0x06, 0xff] {
        m.refused(
            "an unknown type",
            Sender::Peer,
            Why::UnknownType,
            &[&MAGIC[..], &[kind, 1, 2, 3]].concat(),
        );
    }
    m.file
}

fn data(m: &mut Maker) {
    for bytes in [&b"hello"[..], &[0], &MAGIC[..7], b"\x0bbowlinf and more", &[0x30; 60]] {
        m.plain("bare data", Sender::Peer, Message::Data { data: bytes.into() });
    }
    m.plain("empty data", Sender::Peer, Message::EscapedData { data: Hex(vec![]) });
    m.plain("data that is the magic", Sender::Peer, Message::EscapedData { data: MAGIC.into() });
    m.plain(
        "data that begins with the magic",
        Sender::Peer,
        Message::EscapedData { data: b"\x0bbowline\x01 looks like a HELLO".into() },
    );
    let name = "escaped without need: taken all the same";
    m.plain(name, Sender::Peer, Message::EscapedData { data: b"plain".into() });
    m.refused("an empty datagram", Sender::Peer, Why::Malformed, &[]);
    m.refused("a bare magic", Sender::Peer, Why::Malformed, &MAGIC);
}

fn joined(m: &mut Maker) {
    let mut joined = |name: &str, size: u16, data: &[u8]| {
        m.plain(name, Sender::Peer, Message::JoinedData { size, data: data.into() })
    };
    joined("three messages of four bytes", 4, b"one.two.four");
    joined("the last is shorter", 5, b"first1234501");
    joined("what need not be escaped", 9, &[&MAGIC[..], &[0], &MAGIC[..]].concat());
    joined("64 messages", 1, &[7; 64]);
    joined("one message, shorter than the size", 100, b"alone");
    let header = joined_header(1);
    m.refused("65 messages", Sender::Peer, Why::Malformed, &[&header[..], &[7; 65]].concat());
    m.refused("no message", Sender::Peer, Why::Malformed, &header);
    m.refused("a size of zero", Sender::Peer, Why::Malformed, &[&joined_header(0)[..], b"data"].concat());
    m.refused("ends within its size", Sender::Peer, Why::Malformed, &header[..header.len() - 1]);
}

fn hello(m: &mut Maker) {
    let alice = bowline_proto::DeviceId::from_bytes(m.id(ALICE).array());
    let key = IntroductionKey::derive(&MASTER_KEY, alice);
    let front = [&MAGIC[..], &[1], &m.id(ALICE).0, &m.id(BOB).0, &m.public_key(ALICE).0, &TOKEN].concat();
    let sign = |introduction_key| Sign {
        context: "hello",
        signer: ALICE,
        introduction_key: Some(introduction_key),
        ..Sign::default()
    };
    let (initiator_id, responder_id, public_key) = (m.id(ALICE), m.id(BOB), m.public_key(ALICE));
    let hello = |introduction: [u8; 8], takes, padding| Message::Hello {
        initiator_id: initiator_id.clone(),
        responder_id: responder_id.clone(),
        public_key: public_key.clone(),
        token: TOKEN.into(),
        introduction: introduction.into(),
        takes,
        padding,
    };
    m.signed("no base has introduced the two", Sender::Peer, hello([0; 8], None, 0), &sign([0; 16]));
    m.signed("says that it takes joined data", Sender::Peer, hello([0; 8], Some(1), 0), &sign([0; 16]));
    let padding = PADDED_HELLO_LEN - SAYING_HELLO_LEN;
    let padded = m.signed(
        "introduced, padded to 1,209 bytes",
        Sender::Peer,
        hello(key.introduce(&front), Some(0), padding),
        &sign(key.0),
    );
    m.tolerated("padding is not signed", &[&padded[..padded.len() - 1], &[0xff]].concat());
    let bytes = m.signed("introduced", Sender::Peer, hello(key.introduce(&front), None, 0), &sign(key.0));
    m.refused_signature("for another responder", &flipped(&bytes, 9 + 14, 0), |_| ());
    m.refused_signature(
        "from another initiator: the key does not make the ID",
        &flipped(&bytes, 9, 0),
        |_| (),
    );
    m.refused_signature("another token", &flipped(&bytes, 9 + 28 + 32, 0), |_| ());
    m.refused_signature("another introduction", &flipped(&bytes, 9 + 28 + 32 + 16, 0), |_| ());
    m.refused_signature("another signature", &flipped(&bytes, HELLO_LEN - 64, 0), |_| ());
    m.refused("ends within its signature", Sender::Peer, Why::Malformed, &bytes[..HELLO_LEN - 1]);
}

fn reply(m: &mut Maker) {
    let reply = Message::HelloReply {
        initiator_id: m.id(ALICE),
        responder_id: m.id(BOB),
        public_key: m.public_key(BOB),
        token: TOKEN.into(),
    };
    let sign = Sign { context: "hello-reply", signer: BOB, ..Sign::default() };
    let bytes = m.signed("Bob answers Alice's HELLO", Sender::Peer, reply, &sign);
    m.refused_signature("to another initiator", &flipped(&bytes, 9, 0), |_| ());
    m.refused_signature(
        "by another responder: the key does not make the ID",
        &flipped(&bytes, 9 + 14, 0),
        |_| (),
    );
    m.refused_signature("another token", &flipped(&bytes, 9 + 28 + 32, 0), |_| ());
    m.refused("one byte short", Sender::Peer, Why::Malformed, &bytes[..bytes.len() - 1]);
    m.refused("one byte more", Sender::Peer, Why::Malformed, &[&bytes[..], &[0]].concat());
}
