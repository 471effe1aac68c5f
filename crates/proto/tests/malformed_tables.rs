//! Malformed messages, from tables: every message of the vector files, cut, lengthened, mixed up and flipped.
//!
//! What is tried here is exhaustive where it can be (each length, each bit of what is signed); arbitrary input is the
//! business of `malformed_arbitrary` and of the fuzz targets.

mod vectors_support;

use std::fs;

use bowline_proto::wire::{
    Malformed, addr,
    frame::{self, LENGTH_LEN, MAX_FRAME},
    peer::{HELLO_LEN, MAGIC, PREFIX_LEN, PeerDatagram},
    tcp::{self, BaseFrame, HostFrame},
    udp::{BaseDatagram, NAT_OK_LEN, NatConfirm, NatOk, UnverifiedNatInit},
};
use vectors_support::{
    codec::{self, Family},
    file::{MessageFile, Sender, Vector},
    folder,
    message::Message,
};

const SIGNATURE: usize = 64;

fn messages(name: &str) -> MessageFile {
    serde_json::from_str(&fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// A TCP frame's type and body.
fn frame_of(vector: &Vector) -> &[u8] {
    &vector.bytes.0[LENGTH_LEN..]
}

fn decode_frame(from: Sender, frame: &[u8]) -> Result<Option<Message>, Malformed> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, |out| out.extend_from_slice(frame));
    codec::decode(Family::Tcp, from, &bytes)
}

/// Bytes of a frame that its type needs: the fields, without the caller's data.
fn needed(message: &Message, frame: &[u8]) -> usize {
    match message {
        Message::SendData { data, .. } | Message::RecvData { data, .. } => frame.len() - data.0.len(),
        // One byte of them is needed.
        Message::SendJoined { data, .. } | Message::RecvJoined { data, .. } => frame.len() + 1 - data.0.len(),
        _ => frame.len(),
    }
}

#[test]
fn every_frame_cut_short_anywhere_is_too_short() {
    for vector in messages("tcp.json").messages {
        let frame = frame_of(&vector);
        for length in 1..needed(&vector.message, frame) {
            let decoded = decode_frame(vector.from, &frame[..length]);
            match (&vector.message, decoded) {
                // A REGISTER takes its last 64 bytes for the signature wherever it ends: what is cut is then part of
                // the agent's text, and a text that ends within a character is no text.
                (Message::Register { .. }, Err(Malformed::TooShort | Malformed::Text)) => {}
                (_, Err(Malformed::TooShort)) => {}
                (_, other) => panic!("{}: cut to {length}: {other:?}", vector.name),
            }
        }
    }
}

#[test]
fn bytes_after_a_frames_fields_are_ignored() {
    for vector in messages("tcp.json").messages {
        let frame = frame_of(&vector);
        for extra in [1, 2, 17, 64, 500] {
            let longer = [frame, &vec![0xee; extra]].concat();
            match &vector.message {
                // Data takes all that comes; a registration's signature is looked for at the new end.
                Message::SendData { .. } | Message::RecvData { .. } | Message::Register { .. } => {}
                Message::SendJoined { .. } | Message::RecvJoined { .. } => {}
                message => assert_eq!(
                    decode_frame(vector.from, &longer),
                    Ok(Some(message.clone())),
                    "{}",
                    vector.name
                ),
            }
        }
    }
}

#[test]
fn a_registration_with_fields_of_a_later_version_verifies_when_they_are_signed() {
    use bowline_proto::{SecretKey, identity::Context};
    let file = messages("tcp.json");
    let vector = file.messages.iter().rfind(|v| matches!(v.message, Message::Register { .. })).unwrap();
    let signing = vector.signing.as_ref().unwrap();
    let (base, cookie) = (signing.base_id.as_ref().unwrap(), signing.cookie.as_ref().unwrap());
    let key: SecretKey = file.keys[&signing.signer].secret();
    let body = frame_of(vector);
    let mut later = [&body[..body.len() - SIGNATURE], b"fields of version 2"].concat();
    let signature = key.sign(Context::Register, &[&base.0, &cookie.0, &later]);
    later.extend_from_slice(&signature);
    let Ok(HostFrame::Register(register)) = HostFrame::decode(&later) else { panic!("not taken") };
    let verified = register
        .verify(bowline_proto::DeviceId::from_bytes(base.array()), &cookie.array())
        .expect("the signature covers what is not known");
    assert_eq!(verified.agent, "bowline/0.1.0");
}

#[test]
fn a_frame_on_the_wrong_side_is_named_so_whatever_it_contains() {
    for vector in messages("tcp.json").messages {
        let frame = frame_of(&vector);
        for length in [1, frame.len()] {
            let frame = &frame[..length];
            let wrong = match vector.from {
                Sender::Host => BaseFrame::decode(frame).err(),
                _ => HostFrame::decode(frame).err(),
            };
            assert_eq!(wrong, Some(Malformed::WrongSide(frame[0])), "{}", vector.name);
        }
    }
}

#[test]
fn every_other_type_is_unknown_and_no_error() {
    let known: Vec<u8> = messages("tcp.json").messages.iter().map(|v| v.bytes.0[LENGTH_LEN]).collect();
    for kind in (0..=u8::MAX).filter(|kind| !known.contains(kind)) {
        for frame in [vec![kind], vec![kind; 100], vec![kind; MAX_FRAME]] {
            assert!(matches!(HostFrame::decode(&frame), Ok(HostFrame::Unknown(k)) if k == kind));
            assert_eq!(BaseFrame::decode(&frame), Ok(BaseFrame::Unknown(kind)));
        }
    }
    assert_eq!(HostFrame::decode(&[]).err(), Some(Malformed::TooShort));
    assert_eq!(BaseFrame::decode(&[]), Err(Malformed::TooShort));
}

/// Frames with one list or text each, told by what stands before it and how many items it may have.
#[test]
fn a_list_is_taken_up_to_its_limit_and_not_beyond() {
    let lists: [(Sender, u8, usize, u8, usize); 4] = [
        (Sender::Host, tcp::INFO, 8 + 16, 12, 0),
        (Sender::Base, tcp::REGISTERED, 18 + 2, 4, 0),
        (Sender::Base, tcp::DEVICE_ADDRESSES, 14 + 4 + 16, 4, 1),
        (Sender::Base, tcp::DEVICE_ADDRESSES, 14 + 4 + 16 + 1, 12, 0),
    ];
    for (from, kind, front, limit, after) in lists {
        for count in 0..=u8::MAX {
            let list = [
                vec![kind],
                vec![0; front],
                vec![count],
                vec![0; usize::from(count) * addr::ADDR_LEN + after],
            ];
            let decoded = decode_frame(from, &list.concat());
            if count <= limit {
                assert!(matches!(decoded, Ok(Some(_))), "{kind:#04x}: {count} of {limit}: {decoded:?}");
            } else {
                assert_eq!(decoded, Err(Malformed::OverLimit), "{kind:#04x}: {count} of {limit}");
            }
        }
    }
    for count in 0..=u8::MAX {
        let init =
            [vec![0x30], vec![0; 16], vec![count], vec![0; usize::from(count) * addr::ADDR_LEN + SIGNATURE]];
        let decoded = UnverifiedNatInit::decode(&init.concat()).map(|init| init.claim().own.len());
        let expected = if count <= 12 { Ok(usize::from(count)) } else { Err(Malformed::OverLimit) };
        assert_eq!(decoded, expected);
    }
}

#[test]
fn a_text_is_utf_8_without_control_characters() {
    let bad: [&[u8]; 12] = [
        b"\0",
        b"\n",
        b"\t",
        b"\x1b[31m",
        b"\x7f",
        b"\xc2\x80",         // U+0080, the first of the C1 controls
        b"\xc2\x9f",         // U+009F, the last
        b"\xff",             // never in UTF-8
        b"\xc0\x80",         // NUL in two bytes
        b"\xed\xa0\x80",     // half of a surrogate pair
        b"\xf4\x90\x80\x80", // beyond U+10FFFF
        b"a\xe2\x82",        // ends within a character
    ];
    let good: [&[u8]; 6] =
        [b"", b" ", b"bowline/0.1.0", "\u{a0}".as_bytes(), "é漢🪢".as_bytes(), &[b'x'; 255]];
    let texts: [(Sender, u8, usize, usize); 3] = [
        (Sender::Base, tcp::ERROR, 3, 0),
        (Sender::Base, tcp::NOTICE, 1, 0),
        (Sender::Host, tcp::REGISTER, 14 + 32 + 8 + 4 + 4, SIGNATURE),
    ];
    for (from, kind, front, after) in texts {
        let frame = |text: &[u8]| {
            decode_frame(
                from,
                &[&[kind], &vec![1; front][..], &[text.len() as u8], text, &vec![1; after]].concat(),
            )
        };
        for text in bad {
            assert_eq!(frame(text), Err(Malformed::Text), "{kind:#04x} {text:02x?}");
        }
        for text in good {
            assert!(matches!(frame(text), Ok(Some(_))), "{kind:#04x} {text:02x?}");
        }
    }
}

#[test]
fn what_is_sent_never_carries_more_than_a_reader_takes() {
    let many: Vec<std::net::SocketAddr> = (0..40).map(|n| ([192, 0, 2, n], 9).into()).collect();
    let mut out = Vec::new();
    tcp::Info { number: 1, master_key: [0; 16], own: many.clone() }.write(&mut out);
    assert!(matches!(HostFrame::decode(&out[2..]), Ok(HostFrame::Info(info)) if info.own == many[..12]));
    out.clear();
    let text = format!("a\nb{}", "é".repeat(200));
    BaseFrame::Notice(tcp::Notice { code: tcp::NoticeCode::Limit, text }).write(&mut out);
    let Ok(BaseFrame::Notice(notice)) = BaseFrame::decode(&out[2..]) else { panic!("unreadable") };
    assert_eq!(notice.text, format!("ab{}", "é".repeat(126)));
}

#[test]
fn datagrams_of_a_base_have_their_length_or_padding_where_it_may_be() {
    let file = messages("udp.json");
    for vector in file.messages {
        let bytes = &vector.bytes.0;
        let (fields, padded) = match &vector.message {
            Message::NatInit { padding, .. } | Message::NatOk { padding, .. } => {
                (bytes.len() - padding, true)
            }
            Message::SendData { .. } | Message::RecvData { .. } => (15, true),
            // Any length, if it is no more than 64 of their size.
            Message::SendJoined { .. } | Message::RecvJoined { .. } => continue,
            _ => (bytes.len(), false),
        };
        for length in 0..fields {
            let decoded = codec::decode(Family::Udp, vector.from, &bytes[..length]);
            assert_eq!(decoded, Err(Malformed::TooShort), "{} cut to {length}", vector.name);
        }
        for extra in [1, 18, 64, 1_400] {
            let longer = [&bytes[..], &vec![0; extra]].concat();
            let decoded = codec::decode(Family::Udp, vector.from, &longer);
            if padded {
                assert!(matches!(decoded, Ok(Some(_))), "{} with {extra} more: {decoded:?}", vector.name);
            } else {
                assert_eq!(decoded, Err(Malformed::TooLong), "{} with {extra} more", vector.name);
            }
        }
    }
}

#[test]
fn a_nat_confirm_ends_in_zeros() {
    let confirm = NatConfirm { cookie: [1; 8], seq: 2, challenge: [3; 8] }.encode();
    assert_eq!(confirm.len(), NAT_OK_LEN);
    for at in 25..NAT_OK_LEN {
        for bit in 0..8 {
            let mut wrong = confirm.clone();
            wrong[at] ^= 1 << bit;
            assert_eq!(NatConfirm::decode(&wrong), Err(Malformed::Fixed));
        }
    }
}

#[test]
fn a_decoder_that_is_called_for_another_type_says_so() {
    for kind in 0..=u8::MAX {
        let datagram = [kind; NAT_OK_LEN + 100];
        if kind != 0x30 {
            assert_eq!(UnverifiedNatInit::decode(&datagram).err(), Some(Malformed::UnknownType(kind)));
        }
        if kind != 0x31 {
            assert_eq!(NatOk::decode(&datagram).err(), Some(Malformed::UnknownType(kind)));
        }
        if kind != 0x32 {
            assert_eq!(NatConfirm::decode(&datagram[..NAT_OK_LEN]).err(), Some(Malformed::UnknownType(kind)));
        }
        let expected = match kind {
            0x31 | 0x21 | 0x23 => None,
            0x33 | 0x35 => Some(Malformed::TooLong),
            0x20 | 0x22 | 0x30 | 0x32 | 0x34 => Some(Malformed::WrongSide(kind)),
            _ => Some(Malformed::UnknownType(kind)),
        };
        assert_eq!(BaseDatagram::decode(&datagram).err(), expected);
    }
}

#[test]
fn datagrams_of_a_peer_have_their_length_or_padding_where_it_may_be() {
    for vector in messages("peer.json").messages {
        let bytes = &vector.bytes.0;
        let (fields, extra_is_fine) = match &vector.message {
            Message::Hello { .. } => (HELLO_LEN, true),
            Message::HelloReply { .. } | Message::UnknownSource {} | Message::Knock {} => {
                (bytes.len(), false)
            }
            _ => continue,
        };
        for length in MAGIC.len()..fields {
            let decoded = codec::decode(Family::Peer, vector.from, &bytes[..length]);
            assert_eq!(decoded, Err(Malformed::TooShort), "{} cut to {length}", vector.name);
        }
        let longer = [&bytes[..], &[0; 3]].concat();
        let decoded = codec::decode(Family::Peer, vector.from, &longer);
        assert_eq!(decoded.is_ok(), extra_is_fine, "{}: {decoded:?}", vector.name);
    }
}

#[test]
fn what_does_not_begin_with_the_whole_magic_is_data() {
    for length in 1..MAGIC.len() {
        assert!(
            matches!(PeerDatagram::decode(&MAGIC[..length]), Ok(PeerDatagram::Data(data)) if data == &MAGIC[..length])
        );
    }
    for at in 0..MAGIC.len() {
        let mut datagram = vec![0; HELLO_LEN];
        datagram[..MAGIC.len()].copy_from_slice(&MAGIC);
        datagram[at] ^= 0x20;
        assert!(matches!(PeerDatagram::decode(&datagram), Ok(PeerDatagram::Data(data)) if data == datagram));
    }
    for kind in 6..=u8::MAX {
        let datagram = [&MAGIC[..], &[kind; 200]].concat();
        assert_eq!(PeerDatagram::decode(&datagram).err(), Some(Malformed::UnknownType(kind)));
    }
}

/// Flips each bit of each signed message: of what is signed and of the signature none may pass, of padding all.
#[test]
fn a_flipped_bit_is_noticed_everywhere_but_in_padding() {
    for (name, family, front) in [
        ("tcp.json", Family::Tcp, LENGTH_LEN + 1),
        ("udp.json", Family::Udp, 1),
        ("peer.json", Family::Peer, PREFIX_LEN),
    ] {
        let file = messages(name);
        for vector in file.messages.iter().filter(|v| v.signing.is_some()) {
            let signing = vector.signing.as_ref().unwrap();
            let padding = match vector.message {
                Message::NatInit { padding, .. } => padding,
                Message::Hello { takes, padding, .. } => padding + usize::from(takes.is_some()),
                _ => 0,
            };
            let end = vector.bytes.0.len() - padding;
            // One bit of each byte, another one each time: eight times the work would find nothing more.
            for at in front..vector.bytes.0.len() {
                let mut bytes = vector.bytes.0.clone();
                bytes[at] ^= 1 << (at % 8);
                let well_formed = matches!(codec::decode(family, vector.from, &bytes), Ok(Some(_)));
                let passes = well_formed && codec::verifies(family, &bytes, signing, &file.keys);
                assert_eq!(passes, at >= end, "{name}: {}: byte {at}", vector.name);
            }
        }
    }
}
