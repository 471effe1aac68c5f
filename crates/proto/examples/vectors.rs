//! Writes the test vectors in `docs/vectors`: `cargo run -p bowline-proto --example vectors`.
//!
//! The files are a function of the code alone. The test `vectors` fails when they differ from what this writes, and
//! `docs/vectors/check.py` recomputes everything in Python, without this code: run it after a change here.

#[path = "../tests/vectors_support/mod.rs"]
mod vectors_support;

use std::{fs, io};

fn main() -> io::Result<()> {
    let folder = vectors_support::folder();
    fs::create_dir_all(&folder)?;
    for (name, content) in vectors_support::make::all() {
        let path = folder.join(name);
        fs::write(&path, content)?;
        println!("{}", path.display());
    }
    Ok(())
}
