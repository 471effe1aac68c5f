//! Messages that are sent together, and how many of them can share a system call.

use std::io::IoSlice;

use bowline_proto::wire::peer::needs_escape;
use bytes::Bytes;

use crate::{Ecn, config::MAX_SEGMENTED_BYTES};

/// Messages of a caller's that are sent together: in buffers of their own, or one after the other in one.
pub(crate) trait Batch {
    fn count(&self) -> usize;
    fn message(&self, at: usize) -> &[u8];

    /// The mark of one of them.
    fn ecn(&self, at: usize) -> Ecn;

    /// The bytes of `count` messages from `at` on, as the system takes them.
    fn parts(&self, at: usize, count: usize) -> Vec<IoSlice<'_>>;

    /// How many parts `count` messages are.
    fn pieces(&self, count: usize) -> usize {
        count
    }
}

impl Batch for [Bytes] {
    fn count(&self) -> usize {
        self.len()
    }

    fn message(&self, at: usize) -> &[u8] {
        &self[at]
    }

    fn ecn(&self, _at: usize) -> Ecn {
        Ecn::NotEct
    }

    fn parts(&self, at: usize, count: usize) -> Vec<IoSlice<'_>> {
        self[at..at + count].iter().map(|message| IoSlice::new(message)).collect()
    }
}

impl Batch for [(Bytes, Ecn)] {
    fn count(&self) -> usize {
        self.len()
    }

    fn message(&self, at: usize) -> &[u8] {
        &self[at].0
    }

    fn ecn(&self, at: usize) -> Ecn {
        self[at].1
    }

    fn parts(&self, at: usize, count: usize) -> Vec<IoSlice<'_>> {
        self[at..at + count].iter().map(|(message, _)| IoSlice::new(message)).collect()
    }
}

/// One buffer, cut into messages of one size and with one mark; the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segments<'a> {
    data: &'a [u8],
    segment: usize,
    ecn: Ecn,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(data: &'a [u8], segment: usize, ecn: Ecn) -> Self {
        Self { data, segment: segment.max(1), ecn }
    }

    fn range(&self, at: usize, count: usize) -> &'a [u8] {
        let end = ((at + count) * self.segment).min(self.data.len());
        &self.data[at * self.segment..end]
    }
}

impl Batch for Segments<'_> {
    fn count(&self) -> usize {
        self.data.len().div_ceil(self.segment)
    }

    fn message(&self, at: usize) -> &[u8] {
        self.range(at, 1)
    }

    fn ecn(&self, _at: usize) -> Ecn {
        self.ecn
    }

    fn parts(&self, at: usize, count: usize) -> Vec<IoSlice<'_>> {
        vec![IoSlice::new(self.range(at, count))]
    }

    fn pieces(&self, _count: usize) -> usize {
        1
    }
}

/// How many messages from `first` on can share a send: by the same way, with the same mark, of equal size (the last may be shorter),
/// none of which needs an escape. Each travels with `header` more bytes.
pub(crate) fn run_length<B>(
    batch: &B,
    first: usize,
    max: usize,
    header: usize,
    same_way: impl Fn(usize) -> bool,
) -> usize
where
    B: Batch + ?Sized,
{
    let size = batch.message(first).len();
    // Through a base nothing is escaped; but a run of nothing but headers is nobody's concern.
    let alone = |data: &[u8]| if header == 0 { needs_escape(data) } else { data.is_empty() };
    if alone(batch.message(first)) {
        return 1;
    }
    // Through a base there are no marks, either.
    let same_mark = |at: usize| header > 0 || batch.ecn(at) == batch.ecn(first);
    let mut bytes = header + size;
    let mut run = 1;
    let most = max.min(batch.count() - first);
    while run < most && same_way(first + run) && same_mark(first + run) {
        let message = batch.message(first + run);
        if alone(message) || message.len() > size || bytes + header + message.len() > MAX_SEGMENTED_BYTES {
            break;
        }
        bytes += header + message.len();
        run += 1;
        if message.len() < size {
            break;
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use bowline_proto::wire::relay::HEADER_LEN;

    use super::*;
    use crate::config::MAX_SEGMENTS;

    fn runs(ways: &[u8], lengths: &[usize], header: usize) -> Vec<usize> {
        let batch: Vec<_> = lengths.iter().map(|&length| Bytes::from(vec![1; length])).collect();
        let mut runs = Vec::new();
        let mut at = 0;
        while at < batch.len() {
            let run = run_length(&batch[..], at, MAX_SEGMENTS, header, |other| ways[other] == ways[at]);
            runs.push(run);
            at += run;
        }
        runs
    }

    #[test]
    fn messages_of_equal_size_on_the_same_way_share_a_send_and_a_shorter_one_ends_it() {
        assert_eq!(runs(&[1; 5], &[1200; 5], 0), [5]);
        assert_eq!(runs(&[1; 5], &[1200, 1200, 300, 1200, 1200], 0), [3, 2]);
        assert_eq!(runs(&[1; 3], &[300, 1200, 1200], 0), [1, 2]);
        assert_eq!(runs(&[1, 1, 2, 2], &[1200; 4], 0), [2, 2]);
    }

    #[test]
    fn a_send_takes_no_more_than_the_kernel_does() {
        assert_eq!(runs(&[1; 130], &[100; 130], 0), [64, 64, 2]);
        assert_eq!(runs(&[1; 8], &[16_000; 8], 0), [4, 4]);
        assert_eq!(runs(&[1; 60], &[1200; 60], HEADER_LEN), [53, 7]);
    }

    #[test]
    fn only_messages_with_the_same_mark_share_a_send_where_there_are_marks() {
        let marks = [Ecn::Ect0, Ecn::Ect0, Ecn::Ce, Ecn::NotEct, Ecn::NotEct];
        let batch = marks.map(|ecn| (Bytes::from_static(b"data"), ecn));
        let run = |first, header| run_length(&batch[..], first, 64, header, |_| true);
        assert_eq!([run(0, 0), run(2, 0), run(3, 0)], [2, 1, 2]);
        assert_eq!(run(0, HEADER_LEN), 5, "a base carries none");
    }

    #[test]
    fn messages_that_need_an_escape_go_alone() {
        let magic = Bytes::from_static(b"\x0bbowline!");
        let part = [Bytes::from_static(b"123456789"), magic.clone(), magic, Bytes::from_static(b"123456789")];
        assert_eq!(run_length(&part[..], 0, 64, 0, |_| true), 1);
        assert_eq!(run_length(&part[..], 1, 64, 0, |_| true), 1);
        assert_eq!(run_length(&[Bytes::from_static(b"1"), Bytes::new()][..], 0, 64, 0, |_| true), 1);
        assert_eq!(
            run_length(&part[..], 0, 64, HEADER_LEN, |_| true),
            4,
            "through a base nothing is escaped"
        );
    }

    #[test]
    fn one_buffer_is_cut_into_messages_of_one_size_and_a_rest() {
        let data = [7; 1000];
        let segments = Segments::new(&data, 300, Ecn::NotEct);
        assert_eq!(segments.count(), 4);
        assert_eq!(segments.message(3).len(), 100);
        assert_eq!(segments.parts(1, 3).len(), 1);
        assert_eq!(segments.parts(1, 3)[0].len(), 700);
        assert_eq!(run_length(&segments, 0, 64, 0, |_| true), 4);
        assert_eq!(Segments::new(&[], 300, Ecn::NotEct).count(), 0);
    }
}
