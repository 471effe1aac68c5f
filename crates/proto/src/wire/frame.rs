//! Framing on TCP: length u16 (of type and body, 1 … 16,384), type u8, body (protocol section 4).
//!
//! [`Frames`] collects a stream that arrives in pieces of any size and gives out whole frames, without copying
//! those that are whole already in the buffer. It holds at most one unfinished frame beyond what one read brought.

use bytes::{Bytes, BytesMut};

use super::Malformed;

/// Bytes of the length field before each frame.
pub const LENGTH_LEN: usize = 2;
/// The largest frame: type and body.
pub const MAX_FRAME: usize = 16_384;

/// Appends a frame: `write` appends type and body, the length is put before them.
///
/// # Panics
/// When `write` appends nothing or more than [`MAX_FRAME`] bytes: the caller's mistake, not the network's.
pub fn write(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_LEN]);
    write(out);
    let length = out.len() - start - LENGTH_LEN;
    assert!((1..=MAX_FRAME).contains(&length), "a frame of {length} bytes");
    out[start..start + LENGTH_LEN].copy_from_slice(&(length as u16).to_be_bytes());
}

/// Cuts a TCP stream into frames.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// The buffer to read the stream into: append what came, then call [`Frames::next_frame`] until it is empty.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame (type and body), or `None` until more has come.
    ///
    /// # Errors
    /// On a length outside 1 … 16,384. The stream is then lost: there is no way to find the next frame.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            return Err(Malformed::TooShort);
        }
        if length > MAX_FRAME {
            return Err(Malformed::TooLong);
        }
        if self.buffer.len() < LENGTH_LEN + length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(LENGTH_LEN + length).freeze();
        Ok(Some(frame.split_off(LENGTH_LEN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames() {
        let mut stream = Vec::new();
        for length in [1usize, 2, 300, MAX_FRAME] {
            write(&mut stream, |out| out.resize(out.len() + length, length as u8));
        }
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            let mut frames = Frames::default();
            let mut lengths = Vec::new();
            for chunk in stream.chunks(piece) {
                frames.buffer().extend_from_slice(chunk);
                while let Some(frame) = frames.next_frame().unwrap() {
                    assert!(frame.iter().all(|&b| b == frame.len() as u8));
                    lengths.push(frame.len());
                }
            }
            assert_eq!(lengths, [1, 2, 300, MAX_FRAME]);
        }
    }

    #[test]
    fn lengths_outside_the_limits_are_malformed() {
        for (length, error) in [(0u16, Malformed::TooShort), (16_385, Malformed::TooLong)] {
            let mut frames = Frames::default();
            frames.buffer().extend_from_slice(&length.to_be_bytes());
            assert_eq!(frames.next_frame(), Err(error));
        }
    }
}
