//! What the owner of the machine sends over UDP: its own answers, and messages that came over TCP.
//!
//! Runs of one destination and size are copied together and leave as one call, a copy being cheaper than a call, until a network device
//! takes none. When a socket's buffer is full the datagram is dropped, as the network would.

use std::{io, net::SocketAddr, sync::Arc};

use bowline_proto::base::Via;

use super::{lanes::Lanes, lanes_of};

/// The most that one send call takes, with IP and UDP headers under 64 KiB.
const LARGEST_RUN: usize = 65_000;
/// Runs collected side by side: flows that alternate still form runs.
const OPEN_RUNS: usize = 8;

/// Datagrams on their way out, as runs.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    runs: Vec<Run>,
    /// Buffers of runs that were sent.
    spare: Vec<Vec<u8>>,
    /// A device has refused a run whose datagrams it took.
    singly: bool,
    dropped: u64,
}

/// Datagrams to one destination, all of one size but for a shorter last one.
#[derive(Debug)]
struct Run {
    via: Via,
    to: SocketAddr,
    size: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl Run {
    fn takes(&self, datagram: &[u8], most: usize) -> bool {
        let all_full = self.bytes.len() == self.size * self.count;
        let fits = self.count < most && self.bytes.len() + datagram.len() <= LARGEST_RUN;
        all_full && fits && (1..=self.size).contains(&datagram.len())
    }

    fn put(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
    }
}

impl Sender {
    /// Takes a datagram; it leaves at the next [`Sender::flush`] at the latest. Those to one destination keep their
    /// order.
    pub(crate) fn push(&mut self, ports: &[Arc<Lanes>], via: Via, to: SocketAddr, datagram: &[u8]) {
        let Some(lanes) = lanes_of(ports, &via) else { return };
        let place = self.runs.iter().position(|run| run.to == to && run.via == via);
        if let Some(place) = place {
            let most = if self.singly { 1 } else { lanes.max_gso_segments() };
            if self.runs[place].takes(datagram, most) {
                self.runs[place].put(datagram);
                return;
            }
            let run = self.runs.remove(place);
            self.send(ports, run);
        } else if self.runs.len() >= OPEN_RUNS {
            let oldest = self.runs.remove(0);
            self.send(ports, oldest);
        }
        let bytes = self.spare.pop().unwrap_or_default();
        let mut run = Run { via, to, size: datagram.len(), count: 0, bytes };
        run.put(datagram);
        self.runs.push(run);
    }

    /// Sends all runs.
    pub(crate) fn flush(&mut self, ports: &[Arc<Lanes>]) {
        for run in std::mem::take(&mut self.runs) {
            self.send(ports, run);
        }
    }

    /// Datagrams that the system did not take.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn send(&mut self, ports: &[Arc<Lanes>], mut run: Run) {
        let Some(lanes) = lanes_of(ports, &run.via) else { return };
        let port = lanes.to(run.to.ip());
        let segment_size = (run.count > 1).then_some(run.size);
        match port.send(run.via.ip, run.to, &run.bytes, segment_size) {
            Ok(()) => lanes.took(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || run.count == 1 => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    lanes.refused();
                }
                self.dropped += run.count as u64;
                tracing::debug!(to = %run.to, count = run.count, %error, "UDP send");
            }
            // Not every device takes runs: the same one by one.
            Err(error) => {
                let singles =
                    run.bytes.chunks(run.size).map(|datagram| port.send(run.via.ip, run.to, datagram, None));
                let passed = singles.take_while(Result::is_ok).count();
                self.dropped += (run.count - passed) as u64;
                self.singly |= passed > 0 && says_no_runs(&error);
            }
        }
        run.bytes.clear();
        self.spare.push(run.bytes);
    }
}

/// What the system says where a device takes no runs, and elsewhere, too.
fn says_no_runs(error: &io::Error) -> bool {
    #[cfg(unix)]
    let is_of_the_device = error.raw_os_error() == Some(nix::libc::EIO);
    #[cfg(not(unix))]
    let is_of_the_device = false;
    is_of_the_device || error.kind() == io::ErrorKind::InvalidInput
}
