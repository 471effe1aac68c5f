//! Writes the first corpora from the test vectors: `cargo run -p bowline-fuzzing --example seeds`.
//!
//! Sequences of operations are not messages; they begin with a few that bring a session up, told by their bytes.

use std::{error::Error, fs, path::PathBuf};

use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    messages: Vec<Vector>,
    tolerated: Vec<Vector>,
    refused: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    from: String,
    bytes: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    for (name, family) in [("tcp", "tcp"), ("udp", "udp"), ("peer", "peer"), ("announce", "announce")] {
        let text = fs::read_to_string(root().join(format!("docs/vectors/{name}.json")))?;
        let file: File = serde_json::from_str(&text)?;
        for (n, vector) in file.messages.iter().chain(&file.tolerated).chain(&file.refused).enumerate() {
            let bytes = unhex(&vector.bytes);
            if bytes.len() > 400 {
                continue;
            }
            match family {
                "tcp" => {
                    write(&format!("tcp_from_{}", vector.from), n, bytes.get(2..).unwrap_or_default())?;
                    write("stream", n, &[&[bytes.len().min(255) as u8], bytes.as_slice()].concat())?;
                }
                other => write(other, n, &bytes)?,
            }
        }
    }
    for (n, text) in TEXTS.iter().enumerate() {
        write("texts", n, text.as_bytes())?;
    }
    for n in 0..4u8 {
        write("base_ops", n.into(), &base_session(n))?;
        write("host_ops", n.into(), &host_session(n))?;
    }
    Ok(())
}

const TEXTS: [&str; 8] = [
    "z617-183m-ja0c-4d8y-c73y-axry",
    "Z617183MJAOC4D8YC73YAXRY",
    "base.example",
    "base.example:4477",
    "[2001:db8::1]:4477",
    "[::1]",
    "z617-183m-ja0c-4d8y-c73y-axry@192.0.2.1:443",
    "2q0f-0a4p-060s-mtr0-m16c-r1jr@[fe80::1]",
];

/// Two connections registered (accept, GET-COOKIE, REGISTER, INFO each), interests both ways, NAT-INIT, data.
fn base_session(limits: u8) -> Vec<u8> {
    let mut ops = vec![limits & 1];
    for n in 0..2 {
        ops.extend([0, n, 2]); // accept from 192.0.2.n with two UDP addresses
        ops.extend([2, n, 0, 2, n, n, 4]); // GET-COOKIE, then REGISTER by device n, attempt 1
        ops.extend([5, 0, n, 5, 1, 13]); // INFO with one own address
    }
    ops.extend([6, 0, 1, 6, 1, 0]); // REQUEST-INFO both ways
    ops.extend([10, 0, 8 + 3, 0, 0, 0, 1, 12, 0, 0, 0, 1]); // NAT-INIT, padded; NAT-CONFIRM
    ops.extend([9, 1, 0, 0, 14, 1, 1, 0, 0, 1, 18, limits]); // data both ways, time
    ops
}

/// A network, a base that resolves, connects, says BASE-HELLO and REGISTERED, then a peer with addresses.
fn host_session(choice: u8) -> Vec<u8> {
    let mut ops = vec![choice << 3, 1, 1, 13]; // one interface with one address
    ops.extend([1, 0, 1, 1, 1, 2, 0, 7, 4, 0, 0, 0, 0]); // resolved, connected, BASE-HELLO
    ops.extend([4, 0, 0, 0, 3, 2, 25, 1, 0x61, 10, 0, 4, 1]); // REGISTERED with one UDP address, NAT-OK
    ops.extend([19, 0, 1, 4, 0, 0, 0, 7, 1, 4, 1, 5]); // data to peer 0, DEVICE-ADDRESSES of it
    ops.extend([21, 3, 14, 0, 0, 19, 0, 1, 12, 0, 0, 0, 21, 5]); // time, HELLO-REPLY, data, HELLO, time
    ops
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn write(target: &str, n: usize, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(format!("seed-{n:03}")), bytes)?)
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
