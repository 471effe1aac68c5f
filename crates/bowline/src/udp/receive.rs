//! Receiving: many datagrams with one system call, handed on without copying where that is worth it.
//!
//! One set of buffers serves both sockets. A chunk is what one buffer holds after a receive: one datagram, or several
//! of equal size that the kernel merged (GRO). Large chunks are handed on in their buffer (`pool.rs`), which is replaced
//! before the next receive; small ones are copied together (`copied.rs`).

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use bowline_proto::wire::peer::{JOINED_HEADER_LEN, read_joined};
use bytes::Bytes;
use quinn_udp::RecvMeta;

use super::{Socket, copied::Copied, pool::Pool};
use crate::{
    Ecn,
    config::{COPY_BELOW, RECEIVE_BUFFERS},
};

#[derive(Debug)]
pub(crate) struct Receiver {
    pool: Pool,
    buffers: Vec<Box<[u8]>>,
    metas: [RecvMeta; RECEIVE_BUFFERS],
    filled: usize,
    copied: Copied,
}

/// Datagrams of one sender, one after the other.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    bytes: &'a [u8],
    /// Length of each but the last.
    pub(crate) stride: usize,
    /// Who sent them.
    pub(crate) from: SocketAddr,
    /// The own address they were sent to.
    pub(crate) local: Option<IpAddr>,
    /// The mark of each of them: the system merges none that differ in it.
    pub(crate) ecn: Ecn,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        let pool = Pool::default();
        Self {
            buffers: (0..RECEIVE_BUFFERS).map(|_| pool.take()).collect(),
            pool,
            metas: [RecvMeta::default(); RECEIVE_BUFFERS],
            filled: 0,
            copied: Copied::default(),
        }
    }

    /// Fills the buffers with what has come; the number of chunks.
    pub(crate) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        self.filled = 0;
        let Self { buffers, metas, pool, .. } = self;
        // Not when they were taken: by now those that were may be back, and still be in the nearest cache.
        buffers.iter_mut().filter(|buffer| buffer.is_empty()).for_each(|buffer| *buffer = pool.take());
        self.filled = socket.ready.try_receive(|| {
            let mut slices = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer));
            let mut slices: [IoSliceMut<'_>; RECEIVE_BUFFERS] =
                std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            socket.state.recv(socket.ready.socket().into(), &mut slices, metas)
        })?;
        let lengths = self.metas[..self.filled].iter().map(|meta| meta.len);
        let small: usize = lengths.filter(|&length| length < COPY_BELOW).sum();
        self.copied.make_room(small);
        Ok(self.filled)
    }

    /// A chunk of the last receive; not to be asked for once its bytes were taken.
    pub(crate) fn chunk(&self, at: usize) -> Chunk<'_> {
        let meta = &self.metas[at];
        Chunk {
            bytes: &self.buffers[at][..meta.len],
            stride: meta.stride.max(1),
            from: meta.addr,
            local: meta.dst_ip,
            ecn: Ecn::from_udp(meta.ecn),
        }
    }

    /// Whether a chunk is one that is copied.
    pub(crate) fn is_small(&self, at: usize) -> bool {
        self.metas[at].len < COPY_BELOW
    }

    /// Copies a small chunk behind those that were copied since the last [`Self::take_copied`].
    pub(crate) fn copy(&mut self, at: usize) {
        self.copied.push(&self.buffers[at][..self.metas[at].len]);
    }

    /// Copies the messages of joined datagrams there, without what is before them.
    pub(crate) fn copy_joined(&mut self, at: usize) {
        let Self { buffers, metas, copied, .. } = self;
        let meta = &metas[at];
        copied.reserve(meta.len);
        for datagram in buffers[at][..meta.len].chunks(meta.stride.max(1)) {
            copied.push(datagram.get(JOINED_HEADER_LEN..).unwrap_or_default());
        }
    }

    /// What was copied.
    pub(crate) fn take_copied(&mut self) -> Bytes {
        self.copied.take()
    }

    /// The bytes of a whole chunk, to be shared.
    pub(crate) fn take(&mut self, at: usize) -> Bytes {
        let length = self.metas[at].len;
        if length < COPY_BELOW {
            return Bytes::copy_from_slice(&self.buffers[at][..length]);
        }
        let buffer = std::mem::take(&mut self.buffers[at]);
        self.pool.share(buffer, length)
    }
}

impl<'a> Chunk<'a> {
    /// Its datagrams. An empty one is one, too.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        let empty = bytes.is_empty().then_some(bytes);
        empty.into_iter().chain(bytes.chunks(self.stride))
    }

    /// The size of its messages and the bytes of all, if its datagrams are joined ones and make one run: only the last is shorter.
    pub(crate) fn joined(&self) -> Option<(usize, usize)> {
        let (size, _) = read_joined(self.datagrams().next()?)?;
        let mut bytes = 0;
        for datagram in self.datagrams() {
            let (same, data) = read_joined(datagram)?;
            if same != size || bytes % size != 0 {
                return None;
            }
            bytes += data.len();
        }
        Some((size, bytes))
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.stride).max(1)
    }

    /// Bytes of all of them.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A part of it.
    pub(crate) fn part(&self, at: Range<usize>) -> &'a [u8] {
        self.bytes.get(at).unwrap_or_default()
    }

    /// Where in the chunk a part of one of its datagrams lies.
    pub(crate) fn position(&self, part: &[u8]) -> Range<usize> {
        let start = (part.as_ptr() as usize).saturating_sub(self.bytes.as_ptr() as usize);
        if part.is_empty() || start + part.len() > self.bytes.len() {
            0..0
        } else {
            start..start + part.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use bowline_proto::wire::peer::joined_header;

    use super::*;

    /// What is read of datagrams of joined messages, each of so many bytes under a header that names this size, that the kernel merged.
    fn joined(datagrams: &[(u16, usize)]) -> Option<(usize, usize)> {
        let datagram = |&(size, length): &(u16, usize)| [&joined_header(size)[..], &vec![7; length]].concat();
        let datagrams: Vec<Vec<u8>> = datagrams.iter().map(datagram).collect();
        let (bytes, stride) = (datagrams.concat(), datagrams[0].len());
        let from = "192.0.2.1:4000".parse().unwrap();
        Chunk { bytes: &bytes, stride, from, local: None, ecn: Ecn::NotEct }.joined()
    }

    #[test]
    fn joined_datagrams_make_one_run_where_all_messages_but_the_last_have_one_size() {
        assert_eq!(joined(&[(10, 30)]), Some((10, 30)));
        assert_eq!(joined(&[(10, 25)]), Some((10, 25)));
        assert_eq!(joined(&[(10, 30), (10, 30), (10, 12)]), Some((10, 72)));
        assert_eq!(joined(&[(10, 25), (10, 25)]), None, "a shorter one in between");
        assert_eq!(joined(&[(10, 30), (15, 30)]), None, "two sizes");
        assert_eq!(joined(&[(10, 30), (0, 30)]), None, "one that is malformed");
    }
}
