//! Receiving: many datagrams with one system call, split without copying where that is worth it.
//!
//! One set of buffers serves both sockets. A chunk is what one buffer holds after a receive: one datagram, or several
//! of equal size that the kernel merged (GRO). Large chunks are handed on in their buffer, which is replaced; small
//! ones are copied, so that nobody who keeps a short message keeps 64 KiB.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use bytes::{Bytes, BytesMut};
use quinn_udp::RecvMeta;
use tokio::io::Interest;

use super::Socket;
use crate::config::{COPY_BELOW, RECEIVE_BUFFER, RECEIVE_BUFFERS};

#[derive(Debug)]
pub(crate) struct Receiver {
    buffers: Vec<BytesMut>,
    metas: [RecvMeta; RECEIVE_BUFFERS],
    filled: usize,
}

/// Datagrams of one sender, one after the other.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    buffer: &'a mut BytesMut,
    length: usize,
    /// Length of each but the last.
    stride: usize,
    /// Who sent them.
    pub(crate) from: SocketAddr,
    /// The own address they were sent to.
    pub(crate) local: Option<IpAddr>,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            buffers: (0..RECEIVE_BUFFERS).map(|_| BytesMut::zeroed(RECEIVE_BUFFER)).collect(),
            metas: [RecvMeta::default(); RECEIVE_BUFFERS],
            filled: 0,
        }
    }

    /// Fills the buffers with what has come; the number of chunks.
    pub(crate) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        self.filled = 0;
        let Self { buffers, metas, .. } = self;
        self.filled = socket.io.try_io(Interest::READABLE, || {
            let mut slices = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer));
            let mut slices: [IoSliceMut<'_>; RECEIVE_BUFFERS] =
                std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            socket.state.recv((&socket.io).into(), &mut slices, metas)
        })?;
        Ok(self.filled)
    }

    /// What the last receive brought.
    pub(crate) fn chunks(&mut self) -> impl Iterator<Item = Chunk<'_>> {
        self.buffers.iter_mut().zip(&self.metas).take(self.filled).map(|(buffer, meta)| Chunk {
            buffer,
            length: meta.len,
            stride: meta.stride.max(1),
            from: meta.addr,
            local: meta.dst_ip,
        })
    }
}

impl Chunk<'_> {
    /// Its datagrams. An empty one is one, too.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = &self.buffer[..self.length];
        let empty = bytes.is_empty().then_some(bytes);
        empty.into_iter().chain(bytes.chunks(self.stride))
    }

    /// Where in the chunk a part of one of its datagrams lies.
    pub(crate) fn position(&self, part: &[u8]) -> std::ops::Range<usize> {
        let start = (part.as_ptr() as usize).saturating_sub(self.buffer.as_ptr() as usize);
        if part.is_empty() || start + part.len() > self.length { 0..0 } else { start..start + part.len() }
    }

    /// The bytes of the whole chunk, to be shared; taken out of their buffer if there are many.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.length < COPY_BELOW {
            return Bytes::copy_from_slice(&self.buffer[..self.length]);
        }
        let mut bytes = std::mem::replace(self.buffer, BytesMut::zeroed(RECEIVE_BUFFER));
        bytes.truncate(self.length);
        bytes.freeze()
    }
}
