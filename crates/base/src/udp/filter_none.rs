//! Elsewhere than on Linux nobody can be asked to drop some of what comes.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
};

use super::police::Queue;

pub(super) fn queue(_: &UdpSocket) -> Queue {
    Queue::default()
}

pub(super) fn police(_: &UdpSocket, _: &[SocketAddr], _: f64) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

pub(super) fn release(_: &UdpSocket) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
