//! The test vectors of `docs/vectors` hold for this code, and the files are what the code makes.

mod vectors_support;

use std::{collections::BTreeSet, fs};

use bowline_proto::{
    DeviceId, PublicKey,
    wire::{
        Malformed, cluster,
        peer::{IntroductionKey, MAGIC, PeerDatagram},
        tcp::{BaseFrame, HostFrame},
        udp::BaseDatagram,
    },
};
use vectors_support::{
    codec::{self, Family},
    file::{IdentityFile, MessageFile, Sender, Signature, Why, context},
    folder, make,
};

const FILES: [(&str, Family); 5] = [
    ("tcp.json", Family::Tcp),
    ("udp.json", Family::Udp),
    ("peer.json", Family::Peer),
    ("announce.json", Family::Announce),
    ("cluster.json", Family::Cluster),
];

fn read(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn messages(name: &str) -> MessageFile {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn identity() -> IdentityFile {
    serde_json::from_str(&read("identity.json")).unwrap()
}

#[test]
fn the_files_are_what_the_example_writes() {
    for (name, content) in make::all() {
        assert!(read(name) == content, "{name} is old: run `cargo run -p bowline-proto --example vectors`");
    }
}

#[test]
fn every_message_encodes_to_its_bytes_and_decodes_to_its_fields() {
    for (name, family) in FILES {
        let file = messages(name);
        for vector in &file.messages {
            let bytes = match family {
                Family::Cluster => codec::encode_cluster(&vector.message, vector.tagging.as_ref()),
                _ => codec::encode(family, &vector.message, vector.signing.as_ref(), &file.keys),
            };
            assert_eq!(vector.bytes.0, bytes, "{name}: {}", vector.name);
        }
        for vector in file.messages.iter().chain(&file.tolerated) {
            let decoded = codec::decode(family, vector.from, &vector.bytes.0);
            assert_eq!(decoded, Ok(Some(vector.message.clone())), "{name}: {}", vector.name);
        }
    }
}

#[test]
fn every_signature_verifies() {
    let mut seen = BTreeSet::new();
    for (name, family) in FILES {
        let file = messages(name);
        for vector in file.messages.iter().chain(&file.tolerated) {
            let Some(signing) = &vector.signing else { continue };
            assert!(codec::verifies(family, &vector.bytes.0, signing, &file.keys), "{name}: {}", vector.name);
            let key = file.keys[&signing.signer].secret();
            let (_, message) = signing.signed.0.split_at(signing.context().message(&[]).len());
            assert_eq!(
                signing.signature.0,
                key.sign(signing.context(), &[message]),
                "{name}: {}",
                vector.name
            );
            seen.insert(signing.context.clone());
        }
    }
    assert_eq!(seen.len(), 4, "all contexts are used: {seen:?}");
}

#[test]
fn every_tag_holds_under_its_key_and_without_one_it_is_the_senders() {
    let file = messages("cluster.json");
    let mut tagged = BTreeSet::new();
    for vector in file.messages.iter().chain(&file.tolerated) {
        if let Some(tagging) = &vector.tagging {
            assert!(codec::tag_holds(&vector.bytes.0, tagging), "{}", vector.name);
            tagged.insert(vector.bytes.0[0]);
        }
    }
    assert_eq!(tagged, BTreeSet::from([cluster::BASE_DATA, cluster::BASE_PING, cluster::BASE_PONG]));
}

#[test]
fn what_is_to_be_refused_is_refused_for_that_reason() {
    for (name, family) in FILES {
        let file = messages(name);
        for refused in &file.refused {
            let decoded = codec::decode(family, refused.from, &refused.bytes.0);
            let as_it_should = match refused.why {
                Why::Malformed => matches!(
                    decoded,
                    Err(Malformed::TooShort
                        | Malformed::TooLong
                        | Malformed::OverLimit
                        | Malformed::Text
                        | Malformed::Fixed)
                ),
                Why::WrongSide => matches!(decoded, Err(Malformed::WrongSide(_))),
                Why::UnknownType => matches!(decoded, Ok(None) | Err(Malformed::UnknownType(_))),
                Why::Signature => {
                    let signing = refused.signing.as_ref().expect("says what it is checked against");
                    decoded.is_ok() && !codec::verifies(family, &refused.bytes.0, signing, &file.keys)
                }
                Why::Tag => {
                    let tagging = refused.tagging.as_ref().expect("says what it is checked against");
                    decoded.is_ok() && !codec::tag_holds(&refused.bytes.0, tagging)
                }
            };
            assert!(as_it_should, "{name}: {}: {decoded:?}", refused.name);
        }
    }
}

/// The types that a decoder knows are the types that the file has messages of, side by side.
#[test]
fn every_message_type_has_a_vector() {
    let in_file = |name: &str, from: Sender, at: usize| -> BTreeSet<u8> {
        let file = messages(name);
        file.messages.iter().filter(|v| v.from == from).map(|v| v.bytes.0[at]).collect()
    };
    let known = |takes: &dyn Fn(&[u8]) -> Result<bool, Malformed>| -> BTreeSet<u8> {
        let is_known = |kind: &u8| match takes(&[*kind; 400]) {
            Ok(known) => known,
            Err(Malformed::WrongSide(_) | Malformed::UnknownType(_)) => false,
            Err(_) => true,
        };
        (0..=u8::MAX).filter(is_known).collect()
    };
    let host = known(&|frame| HostFrame::decode(frame).map(|frame| !matches!(frame, HostFrame::Unknown(_))));
    let base = known(&|frame| BaseFrame::decode(frame).map(|frame| !matches!(frame, BaseFrame::Unknown(_))));
    assert_eq!(host, in_file("tcp.json", Sender::Host, 2));
    assert_eq!(base, in_file("tcp.json", Sender::Base, 2));
    assert_eq!(known(&|d| BaseDatagram::decode(d).map(|_| true)), in_file("udp.json", Sender::Base, 0));
    let hosts_udp: BTreeSet<u8> = (0..=u8::MAX)
        .filter(|&k| matches!(BaseDatagram::decode(&[k; 400]), Err(Malformed::WrongSide(_))))
        .collect();
    assert_eq!(hosts_udp, in_file("udp.json", Sender::Host, 0));
    let peer = known(&|d| PeerDatagram::decode(&[&MAGIC[..], d].concat()).map(|_| true));
    let file = messages("peer.json");
    let in_peer: BTreeSet<u8> =
        file.messages.iter().filter(|v| v.bytes.0.starts_with(&MAGIC)).map(|v| v.bytes.0[8]).collect();
    assert_eq!(peer, in_peer);
    assert!(!messages("announce.json").messages.is_empty());
    let bases = known(&|bytes| {
        let bytes = [bytes, &[bytes[0]; cluster::PROBE_LEN - 400]].concat();
        codec::decode(Family::Cluster, Sender::Base, &bytes).map(|_| true)
    });
    assert_eq!(bases, in_file("cluster.json", Sender::Base, 0));
}

#[test]
fn keys_make_their_ids_and_texts() {
    let mut files: Vec<_> = FILES.iter().map(|(name, _)| messages(name).keys).collect();
    files.push(identity().keys);
    for (name, key) in files.iter().flatten() {
        let secret = key.secret();
        let id = secret.device_id();
        assert_eq!(key.public_key.0, secret.public().0, "{name}");
        assert_eq!(key.id.0, id.as_bytes(), "{name}");
        assert_eq!(key.text, id.to_string(), "{name}");
        assert_eq!(key.text.parse(), Ok(id), "{name}");
        assert_eq!(key.ipv6, id.to_ipv6().to_string(), "{name}");
    }
}

#[test]
fn texts_stand_for_their_ids_or_for_none() {
    let file = identity();
    for text in &file.texts {
        assert_eq!(text.text.parse(), Ok(DeviceId::from_bytes(text.id.array())), "{}", text.name);
    }
    for refused in &file.refused_texts {
        assert!(refused.text.parse::<DeviceId>().is_err(), "{}", refused.name);
    }
}

#[test]
fn verification_is_strict() {
    let holds = |s: &Signature| {
        assert_eq!(s.signed.0, context(&s.context).message(&[&s.message.0]), "{}", s.name);
        PublicKey(s.public_key.array()).verifies(context(&s.context), &[&s.message.0], &s.signature.array())
    };
    let file = identity();
    for signature in &file.signatures {
        assert!(holds(signature), "{}", signature.name);
    }
    for signature in &file.refused_signatures {
        assert!(!holds(signature), "{}", signature.name);
    }
}

#[test]
fn introduction_keys_are_derived_and_used_as_written() {
    for vector in identity().introduction_keys {
        let initiator = DeviceId::from_bytes(vector.initiator_id.array());
        let key = IntroductionKey::derive(&vector.master_key.array(), initiator);
        assert_eq!(vector.introduction_key.0, key.0);
        assert_eq!(vector.introduction.0, key.introduce(&vector.hello_front.0));
    }
}

#[test]
fn a_hello_carries_the_introduction_that_its_key_makes() {
    let file = messages("peer.json");
    let mut introduced = 0;
    for vector in &file.messages {
        let Ok(PeerDatagram::Hello(hello)) = PeerDatagram::decode(&vector.bytes.0) else { continue };
        let key = vector.signing.as_ref().unwrap().introduction_key();
        assert_eq!(hello.is_introduced_by(&key), key != IntroductionKey::NONE, "{}", vector.name);
        assert!(!hello.is_introduced_by(&IntroductionKey([9; 16])), "{}", vector.name);
        introduced += usize::from(key != IntroductionKey::NONE);
    }
    assert!(introduced > 0);
}
