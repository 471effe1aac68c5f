//! `identity.json`: IDs, their texts, signatures and introduction keys (protocol sections 2, 4 and 6).

use bowline_proto::{
    DeviceId, PublicKey, SecretKey,
    wire::peer::{IntroductionKey, MAGIC},
};

use super::{ALICE, BOB, keys, raised};
use crate::vectors_support::{
    file::{Hex, IdentityFile, Introduction, Keys, RefusedText, Signature, Text, context},
    torsion,
};

pub(super) fn file() -> IdentityFile {
    let keys = keys();
    IdentityFile {
        about: [
            "bowline protocol 1, identity.",
            "id = SHA-256(\"bowline device id v1\", public_key)[..14]; check_byte = SHA-256(\"bowline id check v1\", id)[0].",
            "text = Crockford base32 of id and check byte, most significant bits first; ipv6 = fdb0::/16 and the id.",
            "signed = \"bowline/1 \", context, 00, message. Verification is strict: S < L, canonical A and R, neither of small order, no cofactor.",
            "introduction_key = HMAC-SHA256(master_key, \"bowline/1 introduction\" 00, initiator_id)[..16]; introduction = SipHash-2-4(introduction_key, hello_front), least significant byte first.",
        ]
        .map(str::to_owned)
        .into(),
        texts: texts(&keys),
        refused_texts: refused_texts(&keys),
        signatures: signatures(),
        refused_signatures: refused_signatures(),
        introduction_keys: introductions(&keys),
        keys,
    }
}

fn texts(keys: &Keys) -> Vec<Text> {
    let zeros = DeviceId::from_bytes([0; 14]);
    let ones = DeviceId::from_bytes([0xff; 14]);
    let mut texts = Vec::new();
    let mut add = |name: &str, text: String, id: Hex| texts.push(Text { name: name.to_owned(), text, id });
    for (name, id) in [("all zero bits", zeros), ("all one bits", ones)] {
        add(name, id.to_string(), id.as_bytes().into());
    }
    let (text, id) = (&keys[ALICE].text, &keys[ALICE].id);
    add("as written", text.clone(), id.clone());
    add("upper case", text.to_uppercase(), id.clone());
    add("no dashes", text.replace('-', ""), id.clone());
    add(
        "dashes anywhere",
        format!("--{}-", text.replace('-', "").replacen(&text[..2], &format!("{}-", &text[..2]), 1)),
        id.clone(),
    );
    let zeros_id: Hex = zeros.as_bytes().into();
    add("o and O for 0", zeros.to_string().replacen('0', "o", 3).replacen('0', "O", 2), zeros_id);
    let with_ones = with_digit_one();
    for (name, one) in [("i for 1", "i"), ("I for 1", "I"), ("l for 1", "l"), ("L for 1", "L")] {
        add(name, with_ones.to_string().replace('1', one), with_ones.as_bytes().into());
    }
    texts
}

/// An ID whose text has the digit 1 in it.
fn with_digit_one() -> DeviceId {
    DeviceId::from_bytes([0x08, 0x42, 0x10, 0x84, 0x21, 0x08, 0x42, 0x10, 0x84, 0x21, 0x08, 0x42, 0x10, 0x84])
}

fn refused_texts(keys: &Keys) -> Vec<RefusedText> {
    let text = &keys[ALICE].text;
    let other = |c: char| if c == '7' { "8" } else { "7" };
    let first = other(text.chars().next().unwrap_or('0'));
    let last = other(text.chars().last().unwrap_or('0'));
    [
        ("empty", String::new()),
        ("a character short", text[1..].to_owned()),
        ("a character more", format!("{text}0")),
        ("u", format!("u{}", &text[1..])),
        ("U", format!("U{}", &text[1..])),
        ("a character outside ASCII", format!("é{}", &text[1..])),
        ("a space", format!(" {text}")),
        ("a wrong first character", format!("{first}{}", &text[1..])),
        ("a wrong check character", format!("{}{last}", &text[..text.len() - 1])),
    ]
    .map(|(name, text)| RefusedText { name: name.to_owned(), text })
    .into()
}

fn signature(name: &str, key: PublicKey, label: &str, message: &[u8], signature: [u8; 64]) -> Signature {
    Signature {
        name: name.to_owned(),
        public_key: key.0.into(),
        context: label.to_owned(),
        message: message.into(),
        signed: context(label).message(&[message]).into(),
        signature: signature.into(),
    }
}

fn signatures() -> Vec<Signature> {
    let key = SecretKey::from_seed(&[0x11; 32]);
    let mut all: Vec<_> = ["register", "nat-init", "hello", "hello-reply"]
        .into_iter()
        .flat_map(|label| {
            [("no message", &b""[..]), ("a message", b"message")].map(|(name, message)| {
                signature(name, key.public(), label, message, key.sign(context(label), &[message]))
            })
        })
        .collect();
    all.push(edge(
        "a key of mixed order, the equation without cofactor holds",
        torsion::MIXED_KEY,
        torsion::MIXED_HOLDS,
    ));
    all
}

fn refused_signatures() -> Vec<Signature> {
    let (key, other) = (SecretKey::from_seed(&[0x11; 32]), SecretKey::from_seed(&[0x22; 32]));
    let good = key.sign(context("hello"), &[b"message"]);
    let bare = |name, message: &[u8]| signature(name, key.public(), "hello", message, good);
    let neutral: String = format!("01{}", "00".repeat(31));
    let neutral_raised = format!("ee{}7f", "ff".repeat(30));
    let trivial = format!("{neutral}{}", "00".repeat(32));
    vec![
        bare("another message", b"massage"),
        signature("another context", key.public(), "hello-reply", b"message", good),
        signature("another key", other.public(), "hello", b"message", good),
        signature("S raised by the group order", key.public(), "hello", b"message", raised(&good)),
        edge("holds with the cofactor only", torsion::MIXED_KEY, torsion::MIXED_COFACTORED_ONLY),
        edge("R of small order", &format!("{:?}", Hex::from(key.public().0)), torsion::SMALL_ORDER_R),
        edge("A of small order", &neutral, &trivial),
        edge("A of small order, not canonical", &neutral_raised, &trivial),
        edge("A of order 4", &"00".repeat(32), &trivial),
    ]
}

fn edge(name: &str, key: &str, signature_hex: &str) -> Signature {
    let unhex = |text: &str| -> Hex { serde_json::from_value(text.into()).expect("hex") };
    signature(name, PublicKey(unhex(key).array()), "hello", torsion::MESSAGE, unhex(signature_hex).array())
}

fn introductions(keys: &Keys) -> Vec<Introduction> {
    [([0x5a; 16], ALICE), ([0; 16], BOB), (*b"0123456789abcdef", ALICE)]
        .into_iter()
        .map(|(master, name)| {
            let id = DeviceId::from_bytes(keys[name].id.array());
            let key = IntroductionKey::derive(&master, id);
            let front = [&MAGIC[..], &[1], id.as_bytes(), &[0xbb; 14], &keys[name].public_key.0, &[0x77; 16]]
                .concat();
            Introduction {
                master_key: master.into(),
                initiator_id: id.as_bytes().into(),
                introduction_key: key.0.into(),
                introduction: key.introduce(&front).into(),
                hello_front: front.into(),
            }
        })
        .collect()
}
