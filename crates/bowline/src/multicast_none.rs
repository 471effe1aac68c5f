//! In place of `multicast.rs` on systems where the hop limit of a datagram cannot be read safely: nothing is heard.

use std::{io, net::SocketAddr};

use bowline_proto::host::Interface;

/// Never made.
#[derive(Debug)]
pub(crate) enum Multicast {}

#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) from: SocketAddr,
    pub(crate) hop_limit: u8,
    pub(crate) payload: Vec<u8>,
}

impl Multicast {
    pub(crate) fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_interfaces(&mut self, _: &[Interface]) {
        match *self {}
    }

    pub(crate) async fn readable(&self) {
        match *self {}
    }

    pub(crate) fn receive(&mut self) -> Vec<Announcement> {
        match *self {}
    }
}
