//! Datagrams one by one, on systems where nothing better was measured.

use std::sync::Arc;

use super::{batch::Batch, lanes::Lanes, lanes_of};

/// Sends the runs of one worker.
#[derive(Debug)]
pub(crate) struct Egress {
    ports: Vec<Arc<Lanes>>,
    dropped: u64,
    /// One datagram, its pieces put together.
    datagram: Vec<u8>,
}

impl Egress {
    pub(crate) fn new(ports: Vec<Arc<Lanes>>) -> Self {
        Self { ports, dropped: 0, datagram: Vec::new() }
    }

    /// The most datagrams of a run.
    pub(crate) fn most_segments(&self) -> usize {
        1
    }

    /// Datagrams that the system did not take, since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Sends all runs of a round.
    pub(crate) fn send(&mut self, batch: &Batch) {
        for run in batch.runs.all() {
            let Some(lanes) = lanes_of(&self.ports, &run.via) else { continue };
            self.datagram.clear();
            for piece in batch.runs.pieces(run) {
                self.datagram.extend_from_slice(&batch.bytes()[piece]);
            }
            if let Err(error) = lanes.to(run.to.ip()).send(run.via.ip, run.to, &self.datagram, None) {
                self.dropped += 1;
                tracing::debug!(to = %run.to, %error, "UDP send");
            }
        }
    }
}
