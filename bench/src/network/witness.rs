//! A witness of the machine itself: bare datagrams, as often as the devices send theirs, between two hosts of the same world and through
//! the same delay lines. While *they* do not come either, nobody under measurement is to blame: the machine was busy with something else.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bowline_lab::Node;

use super::device::{INTERVAL, clock};

/// The witness's datagrams come so far apart only on a machine that stands still.
const STILL: Duration = Duration::from_millis(150);

/// Sends and receives until it is dropped.
#[derive(Debug)]
pub(crate) struct Witness {
    /// When nothing came, and until when.
    still: Arc<Mutex<Vec<(u64, u64)>>>,
    ended: Arc<AtomicBool>,
}

impl Witness {
    /// From one machine with a public address to another.
    pub(crate) fn start(from: &Node, to: &Node) -> Self {
        let address = |node: &Node| SocketAddr::from((node.ipv4("wan").expect("a public address"), 0));
        let (sender, receiver) = (from.udp(address(from)), to.udp(address(to)));
        receiver.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let target = receiver.local_addr().expect("bound");
        let (still, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (Arc::clone(&still), Arc::clone(&ended));
        thread::spawn(move || receive(&receiver, &seen, &over));
        let over = Arc::clone(&ended);
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let _ = sender.send_to(b"witness", target); // what is lost shows
                thread::park_timeout(INTERVAL);
            }
        });
        Self { still, ended }
    }

    /// Whether the machine stood still for most of this time, from a moment on.
    pub(crate) fn explains(&self, from: u64, gap: u64) -> bool {
        let still = self.still.lock().unwrap_or_else(PoisonError::into_inner);
        let overlap = |&(begin, end): &(u64, u64)| end.min(from + gap).saturating_sub(begin.max(from));
        still.iter().map(overlap).sum::<u64>() >= gap / 2
    }

    /// How long it stood still in all.
    pub(crate) fn total(&self) -> Duration {
        let still = self.still.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_nanos(still.iter().map(|(begin, end)| end - begin).sum())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn receive(socket: &UdpSocket, still: &Mutex<Vec<(u64, u64)>>, ended: &AtomicBool) {
    let mut last = clock();
    while !ended.load(Ordering::Relaxed) {
        if socket.recv_from(&mut [0; 16]).is_err() {
            continue; // nothing for a while: the next one that comes tells for how long
        }
        let now = clock();
        if now - last > STILL.as_nanos() as u64 {
            still.lock().unwrap_or_else(PoisonError::into_inner).push((last, now));
        }
        last = now;
    }
}
