//! The lanes of a worker, served by turns.

use std::{
    future::poll_fn,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use bowline_proto::base::SocketId;

use super::{
    Port, Readiness,
    batch::{Batch, Had},
    lanes::Lanes,
    police::Police,
};

/// One socket of a worker, and whether it can be read.
pub(super) struct Lane {
    id: SocketId,
    port: Arc<Port>,
    /// `None` while it is not watched.
    readiness: Option<Readiness>,
    /// Whether datagrams leave by it, too.
    sends: bool,
    police: Police,
}

impl Lane {
    pub(super) fn all(ports: &[Arc<Lanes>]) -> std::io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for (number, lanes) in ports.iter().enumerate() {
            for (lane, port) in lanes.all().enumerate() {
                let (id, readiness) = (SocketId(number as u16), Some(port.readiness()?));
                let (sends, police) = (lane == 0, Police::default());
                all.push(Self { id, port: Arc::clone(port), readiness, sends, police });
            }
        }
        Ok(all)
    }

    /// From now on it is to be asked. Elsewhere than on Linux a datagram that has left disturbs nobody.
    pub(super) fn stop_watching(&mut self) {
        if self.sends && cfg!(target_os = "linux") {
            self.readiness = None;
        }
    }

    fn is_watched(&self) -> bool {
        self.readiness.is_some()
    }

    fn watch(&mut self) -> std::io::Result<()> {
        self.readiness = Some(self.port.readiness()?);
        Ok(())
    }

    /// Looks who fills it; whether somebody is policed.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if let Some(order) = self.police.look(now, || self.port.queue())
            && let Err(error) = self.port.police(order)
        {
            tracing::debug!(%error, "a socket takes no filter");
        }
        self.police.is_on()
    }

    fn receive(&mut self, batch: &mut Batch) -> Had {
        let before = batch.len();
        let had = self.read(batch);
        self.police.read(had == Had::More, batch.senders(before));
        had
    }

    fn read(&self, batch: &mut Batch) -> Had {
        let Some(readiness) = &self.readiness else { return batch.receive(self.id, &self.port) };
        let mut had = Had::Nothing;
        // The runtime is told that a socket which gave less than it could is empty. What comes later wakes it: its events are read
        // by this thread, after this.
        readiness.try_io(|| {
            had = batch.receive(self.id, &self.port);
            match had {
                Had::Nothing | Had::Some => Err(ErrorKind::WouldBlock.into()),
                Had::More => Ok(()),
            }
        });
        had
    }
}

/// Whose turn is next, and which lanes are to be asked at all: those that were served last, and those that have woken
/// the worker since. The others will wake it, and a worker that is woken by one datagram does not look at all its sockets.
pub(super) struct Turns {
    next: usize,
    due: Arc<[AtomicBool]>,
    /// One for each lane; none before the worker has waited for the first time.
    wakers: Vec<Waker>,
    worker: Waker,
}

/// Wakes the worker for one lane.
struct Call {
    lane: usize,
    due: Arc<[AtomicBool]>,
    worker: Waker,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due[self.lane].store(true, Relaxed);
        self.worker.wake_by_ref();
    }
}

impl Turns {
    pub(super) fn new(lanes: usize) -> Self {
        let due = (0..lanes).map(|_| AtomicBool::new(true)).collect();
        Self { next: 0, due, wakers: Vec::new(), worker: Waker::noop().clone() }
    }

    /// This is to be woken from now on.
    fn wake(&mut self, worker: &Waker) {
        if self.wakers.is_empty() || !self.worker.will_wake(worker) {
            self.worker = worker.clone();
            let of = |lane| Call { lane, due: Arc::clone(&self.due), worker: worker.clone() };
            self.wakers = (0..self.due.len()).map(|lane| Arc::new(of(lane)).into()).collect();
            self.due.iter().for_each(|due| due.store(true, Relaxed));
        }
    }

    fn is_due(&self, place: usize, lane: &Lane) -> bool {
        self.due[place].load(Relaxed) || !lane.is_watched()
    }

    /// Whether a lane may be read. If not, it is due when it can.
    fn poll(&self, place: usize, lane: &Lane) -> Poll<()> {
        self.due[place].store(false, Relaxed);
        let Some(readiness) = &lane.readiness else { return Poll::Ready(()) };
        readiness.poll(&mut Context::from_waker(&self.wakers[place]))
    }

    /// A lane is to be asked next time.
    fn ask(&self, place: usize) {
        self.due[place].store(true, Relaxed);
    }

    /// A lane was served: it is asked next time, and the next one first.
    fn served(&mut self, lane: usize) {
        self.ask(lane);
        self.next = lane + 1;
    }
}

/// Waits until some lane has something, and fills the batch from them by turns, beginning after the one that was served last. Tells whether
/// more is to be expected at once.
pub(super) async fn receive(lanes: &mut [Lane], turns: &mut Turns, batch: &mut Batch) -> bool {
    poll_fn(|cx| {
        turns.wake(cx.waker());
        let more = fill(lanes, turns, batch);
        if !batch.is_empty() {
            return Poll::Ready(more);
        }
        if lanes.iter().all(Lane::is_watched) {
            return Poll::Pending;
        }
        // There is time to wait now.
        for (place, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.is_watched()) {
            turns.ask(place);
            if let Err(error) = lane.watch() {
                // It is asked again and again, which costs time and loses nothing.
                tracing::debug!(%error, "a socket cannot be watched");
                cx.waker().wake_by_ref();
            }
        }
        let more = fill(lanes, turns, batch);
        if batch.is_empty() { Poll::Pending } else { Poll::Ready(more) }
    })
    .await
}

/// Fills the batch with what is there.
fn fill(lanes: &mut [Lane], turns: &mut Turns, batch: &mut Batch) -> bool {
    let start = turns.next;
    let (mut hungry, mut served) = (None, 0);
    let mut more = false;
    for offset in 0..lanes.len() {
        let place = (start + offset) % lanes.len();
        let lane = &mut lanes[place];
        if !batch.has_room() {
            more = true;
            break;
        }
        if !turns.is_due(place, lane) {
            continue;
        }
        // A lane that had nothing is asked again: to wake this when it has.
        while turns.poll(place, lane).is_ready() {
            match lane.receive(batch) {
                Had::Nothing if lane.is_watched() => continue,
                Had::Nothing => break,
                Had::Some => {}
                Had::More => hungry = hungry.or(Some(place)),
            }
            served += 1;
            turns.served(place);
            break;
        }
    }
    // One that is alone may have the rest of the room; of several, none delays the others by more than its turn.
    while let Some(place) = hungry.filter(|_| served == 1 && batch.has_room()) {
        if lanes[place].receive(batch) != Had::More {
            hungry = None;
        }
    }
    more || hungry.is_some()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;

    /// A worker's lanes on two ports, and somebody who sends to them.
    struct World {
        lanes: Vec<Lane>,
        turns: Turns,
        batch: Batch,
        ports: Vec<Arc<Port>>,
        sender: UdpSocket,
    }

    impl World {
        fn new() -> Self {
            let port = || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                Port::new(socket).unwrap()
            };
            // The first of each port is what the worker sends by.
            let ports = [[port(), port()], [port(), port()]];
            let lanes = ports.clone().map(|[first, other]| Lanes::new(first, vec![other]));
            let lanes = Lane::all(&lanes).unwrap();
            let (turns, ports) = (Turns::new(lanes.len()), ports.concat());
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            Self { lanes, turns, batch: Batch::new(), ports, sender }
        }

        fn send(&self, lane: usize) {
            self.sender.send_to(&[lane as u8], self.ports[lane].local_addr()).unwrap();
        }

        /// By which lanes the next datagrams came.
        async fn receive(&mut self) -> Vec<u8> {
            let receive = receive(&mut self.lanes, &mut self.turns, &mut self.batch);
            tokio::time::timeout(Duration::from_secs(10), receive).await.expect("a worker that is woken");
            let mut came = Vec::new();
            self.batch.each(1, |_, _, datagram| {
                came.extend_from_slice(datagram);
                None
            });
            came.sort_unstable();
            came
        }

        fn watched(&self) -> Vec<bool> {
            self.lanes.iter().map(Lane::is_watched).collect()
        }
    }

    #[tokio::test]
    async fn lanes_that_are_not_watched_are_read_and_watched_again_when_there_is_time() {
        let mut world = World::new();
        for _ in 0..3 {
            world.lanes.iter_mut().for_each(Lane::stop_watching);
            if cfg!(target_os = "linux") {
                assert_eq!(world.watched(), [false, true, false, true]);
            }
            (0..4).for_each(|lane| world.send(lane));
            let mut came = Vec::new();
            while came.len() < 4 {
                came.extend(world.receive().await);
            }
            came.sort_unstable();
            assert_eq!(came, [0, 1, 2, 3]);
            // Nothing is there: whoever sends next wakes the worker, by whichever lane.
            for lane in [0, 3, 2, 1, 0] {
                let later = world.sender.try_clone().unwrap();
                let to = world.ports[lane].local_addr();
                let sent = tokio::spawn(async move { later.send_to(&[lane as u8], to) });
                assert_eq!(world.receive().await, [lane as u8]);
                assert_eq!(world.watched(), [true; 4]);
                sent.await.unwrap().unwrap();
            }
        }
    }
}
