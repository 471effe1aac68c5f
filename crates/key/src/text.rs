//! The text of a key file, to and from a key. Pure; where the text is kept is not known here.

use bowline_proto::SecretKey;
use zeroize::Zeroizing;

use crate::Malformed;

/// What every key line of this version begins with.
const KIND: &str = "bowline-key-1";
/// What key lines of all versions begin with.
const ANY_VERSION: &str = "bowline-key-";
/// What some editors on Windows put before all text (U+FEFF).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes of a seed.
const SEED_LEN: usize = 32;

/// The whole file of a key.
pub(crate) fn write(key: &SecretKey) -> Zeroizing<String> {
    use std::fmt::Write;
    // Enough room from the start: a string that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(512));
    let seed = Zeroizing::new(key.seed());
    let id = key.device_id();
    let mut line =
        |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a string takes all that fits memory");
    line(format_args!("# The secret key of {id}.\n"));
    line(format_args!(
        "# Who has it is that device: keep it to yourself, and use it in one place at a time.\n"
    ));
    line(format_args!("{KIND} "));
    for byte in seed.iter() {
        line(format_args!("{byte:02x}"));
    }
    line(format_args!("\n"));
    text
}

/// The key in a file's content.
pub(crate) fn parse(content: &[u8]) -> Result<SecretKey, Malformed> {
    let content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
    let mut key = None;
    for (line, bytes) in (1..).zip(content.split(|&byte| byte == b'\n')) {
        let text = str::from_utf8(bytes).map_err(|_| Malformed::NotText { line })?;
        let text = text.split('#').next().unwrap_or_default();
        let mut words = text.split_ascii_whitespace();
        let Some(kind) = words.next() else { continue };
        if kind != KIND {
            let newer = kind.starts_with(ANY_VERSION);
            return Err(if newer { Malformed::Version { line } } else { Malformed::NotAKey { line } });
        }
        if key.is_some() {
            return Err(Malformed::Second { line });
        }
        let seed = parse_seed(words.next().unwrap_or_default(), line)?;
        if words.next().is_some() {
            return Err(Malformed::Trailing { line });
        }
        key = Some(SecretKey::from_seed(&seed));
    }
    key.ok_or(Malformed::Empty)
}

fn parse_seed(digits: &str, line: usize) -> Result<Zeroizing<[u8; SEED_LEN]>, Malformed> {
    let found = digits.chars().count();
    if found != 2 * SEED_LEN {
        return Err(Malformed::Length { line, found });
    }
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    for (i, digit) in digits.chars().enumerate() {
        let value = digit.to_digit(16).ok_or(Malformed::Digit { line, position: i + 1 })?;
        seed[i / 2] = seed[i / 2] << 4 | value as u8;
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[0xab; 32])
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(parse(write(&key()).as_bytes()).unwrap().seed(), key().seed());
    }

    #[test]
    fn comments_blank_lines_upper_case_and_what_editors_add_are_fine() {
        let digits = "AB".repeat(32);
        for text in [
            format!("bowline-key-1 {digits}"),
            format!("\u{feff}bowline-key-1 {digits}\r\n"),
            format!("# a laptop\n\n  bowline-key-1\t{digits}  # mine\r\n\n# the end"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().seed(), key().seed(), "{text}");
        }
    }

    #[test]
    fn every_defect_is_told_with_its_line() {
        let digits = "ab".repeat(32);
        let wrong_digit = format!("{}g{}", "a".repeat(6), "a".repeat(57));
        for (text, what) in [
            (String::new(), Malformed::Empty),
            ("# only a comment\n".into(), Malformed::Empty),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\n".into(), Malformed::NotAKey { line: 1 }),
            (format!("#\nbowline-key-2 {digits}\n"), Malformed::Version { line: 2 }),
            ("bowline-key-1\n".into(), Malformed::Length { line: 1, found: 0 }),
            (format!("bowline-key-1 {}\n", &digits[1..]), Malformed::Length { line: 1, found: 63 }),
            (format!("bowline-key-1 {digits}0\n"), Malformed::Length { line: 1, found: 65 }),
            (format!("bowline-key-1 {wrong_digit}\n"), Malformed::Digit { line: 1, position: 7 }),
            (format!("bowline-key-1 {digits} laptop\n"), Malformed::Trailing { line: 1 }),
            (format!("bowline-key-1 {digits}\n\nbowline-key-1 {digits}\n"), Malformed::Second { line: 3 }),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), what, "{text}");
        }
        assert_eq!(parse(b"# fine\n\xff\xfe\n").unwrap_err(), Malformed::NotText { line: 2 });
    }

    #[test]
    fn no_error_shows_a_part_of_the_key() {
        let text = format!("bowline-key-1 {}\n", "deadbeef".repeat(9));
        assert!(!parse(text.as_bytes()).unwrap_err().to_string().contains("dead"));
    }
}
