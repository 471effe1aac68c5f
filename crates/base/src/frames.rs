//! Whole frames out of a TCP stream, without copying: a connection's task cuts the stream where a frame ends, and
//! the owner of the machine walks over the frames in place.

use std::hint::black_box;

use bowline_proto::wire::{
    Malformed,
    frame::{LENGTH_LEN, MAX_FRAME},
};

/// How many bytes at the front are whole frames.
pub(crate) fn whole(stream: &[u8]) -> Result<usize, Malformed> {
    let (mut end, mut last) = (0, 0);
    while let Some(frame) = first(&stream[end..])? {
        // Most frames are as long as the one before. Where that is only compared, the processor goes on to the next
        // while it waits for this one's length, which is seldom in its cache.
        end += if frame == last { black_box(last) } else { frame };
        last = frame;
    }
    Ok(end)
}

/// How many bytes at the front of whole frames are so many of them, or all.
pub(crate) fn front(frames: &[u8], most: usize) -> usize {
    let mut end = 0;
    for _ in 0..most {
        let Ok(Some(frame)) = first(&frames[end..]) else { break };
        end += frame;
    }
    end
}

/// The length of the first frame with its length field, if it is whole.
pub(crate) fn first(stream: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(length) = stream.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    match usize::from(u16::from_be_bytes(*length)) {
        0 => Err(Malformed::TooShort),
        length if length > MAX_FRAME => Err(Malformed::TooLong),
        length => Ok((stream.len() >= LENGTH_LEN + length).then_some(LENGTH_LEN + length)),
    }
}

/// Splits the first frame (with its length field) off whole ones.
pub(crate) fn split(frames: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    let length = first(frames).ok()??;
    Some(frames.split_at_mut(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_cut_off() {
        assert_eq!(whole(&[]), Ok(0));
        assert_eq!(whole(&[0]), Ok(0));
        assert_eq!(whole(&[0, 2, 1]), Ok(0));
        assert_eq!(whole(&[0, 2, 1, 1, 0, 1, 9, 0, 3]), Ok(7));
        assert_eq!(whole(&[0, 1, 1, 0, 0]), Err(Malformed::TooShort));
        assert_eq!(whole(&[0x40, 1]), Err(Malformed::TooLong));
    }

    #[test]
    fn so_many_frames_are_taken_from_the_front() {
        let frames = [0, 2, 1, 1, 0, 1, 9, 0, 1, 9];
        assert_eq!([0, 1, 2, 3, 4].map(|most| front(&frames, most)), [0, 4, 7, 10, 10]);
    }

    #[test]
    fn frames_are_walked_over_one_by_one() {
        let mut frames = [0, 2, 1, 1, 0, 1, 9];
        let (a, rest) = split(&mut frames).unwrap();
        assert_eq!(a, [0, 2, 1, 1]);
        let (b, rest) = split(rest).unwrap();
        assert_eq!(b, [0, 1, 9]);
        assert!(split(rest).is_none());
    }
}
