//! Interfaces on Linux: the kernel tells of changes over netlink, in well under a millisecond.
//!
//! Two sockets: one is subscribed to changes of links, addresses and routes and is only a bell; on the other all
//! three tables are read anew. The first event is acted on at once; those that follow (an interface that comes up causes a
//! dozen) are answered with looks that are ever further apart ([`NETWORK_LOOKS`]). An overflow of the bell's buffer is a
//! ring like any other. Of routes, only defaults (and what together is one), and those to private networks are looked at, in any table:
//! policy routing puts them elsewhere than in the main one. Which default is preferred (metrics, rules, tunnels that cover
//! everything by two halves) the kernel is asked, as for a datagram.

use std::{
    io,
    time::{Duration, Instant},
};

use bowline_proto::host::Interface;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep_until,
};

use super::linux_parse::{self as parse, Tables};
use crate::config::NETWORK_LOOKS;

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE` of
/// `rtnetlink(7)`, and `RTNLGRP_IPV6_RULE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x4_0000;
/// What the kernel puts into one answer at most.
const ANSWER: usize = 64 * 1024;
/// Bytes of a netlink message before its family header.
const NETLINK_HEADER_LEN: usize = 16;
/// Tries of a reading that changes interrupt. The last one is used as it is: the change rings the bell anyway.
const TRIES: usize = 3;
/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(1);

pub(crate) struct Watcher {
    bell: AsyncFd<Socket>,
    reader: Reader,
    pace: Pace,
}

impl Watcher {
    /// Opens both sockets and reads the present state. The bell is opened first: what changes while the tables are
    /// read rings it.
    pub(crate) fn new() -> io::Result<(Self, Vec<Interface>)> {
        let mut bell = Socket::new(NETLINK_ROUTE)?;
        bell.bind(&SocketAddr::new(0, GROUPS))?;
        bell.set_non_blocking(true)?;
        let mut reader = Socket::new(NETLINK_ROUTE)?;
        reader.bind_auto()?;
        reader.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers while it is asked; should it ever not, the driver must not hang.
        socket2::SockRef::from(&reader).set_read_timeout(Some(ANSWER_TIME))?;
        let mut watcher = Self {
            bell: registered(bell)?,
            reader: Reader { socket: reader, asked: 0 },
            pace: Pace::default(),
        };
        let first = watcher.reader.read()?;
        Ok((watcher, first))
    }

    /// Waits for a change that may matter, then reads everything.
    pub(crate) async fn changed(&mut self) -> Vec<Interface> {
        loop {
            self.ring().await;
            let now = Instant::now();
            let due = self.pace.next(now);
            if due > now {
                sleep_until(due.into()).await;
                // What has come meanwhile is answered by the same look.
                let _ = self.has_rung();
            }
            match self.reader.read() {
                Ok(interfaces) => return interfaces,
                // The next event is followed by another look.
                Err(error) => tracing::warn!("cannot read the network interfaces: {error}"),
            }
        }
    }

    /// Waits for an event that may matter.
    async fn ring(&self) {
        loop {
            match self.bell.readable().await {
                Ok(mut ready) => {
                    let rung = self.has_rung();
                    ready.clear_ready();
                    if rung {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!("network changes are no longer noticed: {error}");
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Empties the bell; whether any event in it may matter.
    fn has_rung(&self) -> bool {
        let mut rung = false;
        let mut buffer = Vec::with_capacity(ANSWER);
        loop {
            buffer.clear();
            match self.bell.get_ref().recv(&mut buffer, 0) {
                Ok(_) => rung |= messages(&buffer).any(|message| parse::matters(&message)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return rung,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // There were more events than fit. What they were no longer matters.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => rung = true,
                Err(error) => {
                    tracing::warn!("cannot read network changes: {error}");
                    return true;
                }
            }
        }
    }
}

/// Whether the system has no netlink for this process, and not for want of something that will be there later.
pub(crate) fn is_forbidden(error: &io::Error) -> bool {
    let forbidden = [Errno::EAFNOSUPPORT, Errno::EPROTONOSUPPORT, Errno::EACCES, Errno::EPERM, Errno::ENOSYS];
    error.raw_os_error().is_some_and(|code| forbidden.contains(&Errno::from_raw(code)))
}

/// When to look: at once, unless the last look was a moment ago.
#[derive(Debug, Default)]
struct Pace {
    /// The last look, and how many came before it without a pause.
    last: Option<(Instant, usize)>,
}

impl Pace {
    /// An event has come: when the look is due that answers it.
    fn next(&mut self, now: Instant) -> Instant {
        const PAUSE: Duration = NETWORK_LOOKS[NETWORK_LOOKS.len() - 1];
        let (at, before) = match self.last {
            Some((last, before)) if now < last + PAUSE => {
                (now.max(last + NETWORK_LOOKS[before]), (before + 1).min(NETWORK_LOOKS.len() - 1))
            }
            _ => (now, 0),
        };
        self.last = Some((at, before));
        at
    }
}

#[allow(
    deprecated,
    reason = "its replacement is unsafe for types that may not own their descriptor; a socket does"
)]
fn registered(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Asks for tables, one after the other.
struct Reader {
    socket: Socket,
    /// Number of the last question: an answer to an older one, left over from a failed reading, is none.
    asked: u32,
}

impl Reader {
    /// Reads all tables.
    fn read(&mut self) -> io::Result<Vec<Interface>> {
        let mut tables = Tables::default();
        for _ in 0..TRIES {
            tables = Tables::default();
            let mut whole = true;
            for (kind, family, header) in parse::DUMPS {
                whole &= self.dump(kind, family, header, &mut tables)?;
            }
            if whole {
                break;
            }
        }
        for (family, far) in parse::FAR {
            if let Some(index) = self.way(family, far)? {
                tables.prefers(index);
            }
        }
        Ok(tables.interfaces())
    }

    /// The interface by which a datagram leaves that goes to this address.
    fn way(&mut self, family: u8, to: &[u8]) -> io::Result<Option<u32>> {
        let (kind, body) = parse::way_request(family, to);
        self.ask(kind, NLM_F_REQUEST, &body)?;
        let mut buffer = Vec::with_capacity(ANSWER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut answers = messages(&buffer).filter(|message| message.sequence_number() == self.asked);
            if let Some(answer) = answers.next() {
                return Ok(parse::way(&answer));
            }
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.asked += 1;
        let mut request = vec![0; NETLINK_HEADER_LEN];
        request.extend_from_slice(body);
        let length = request.len() as u32;
        let mut fields = NetlinkBuffer::new(&mut request);
        fields.set_length(length);
        fields.set_message_type(kind);
        fields.set_flags(flags);
        fields.set_sequence_number(self.asked);
        self.socket.send(&request, 0).map(drop)
    }

    /// Reads one table; `false` if it changed meanwhile.
    fn dump(&mut self, kind: u16, family: u8, header: usize, into: &mut Tables) -> io::Result<bool> {
        let mut body = vec![0; header];
        body[0] = family;
        self.ask(kind, NLM_F_REQUEST | NLM_F_DUMP, &body)?;
        let mut whole = true;
        let mut buffer = Vec::with_capacity(ANSWER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            for message in messages(&buffer).filter(|message| message.sequence_number() == self.asked) {
                whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    // An error: a family the kernel does not have (IPv6 switched off) has nothing to tell.
                    NLMSG_DONE | NLMSG_ERROR => return Ok(whole),
                    _ => into.apply(&message),
                }
            }
        }
    }
}

/// The messages in one datagram from the kernel.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = (message.length() as usize).next_multiple_of(4).min(bytes.len());
        bytes = &bytes[length..];
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_ever_further_apart_while_events_keep_coming_and_at_once_after_a_pause() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut at = start;
        for gap in [0, 1, 2, 4, 8, 20, 20, 20] {
            let next = pace.next(at);
            assert_eq!(next - at, Duration::from_millis(gap));
            at = next;
        }
        at += Duration::from_millis(20);
        assert_eq!(pace.next(at), at);
        at += Duration::from_micros(1500);
        assert_eq!(pace.next(at), at, "the first gap is over");
        at += Duration::from_micros(500);
        assert_eq!(pace.next(at), at + Duration::from_micros(1500));
    }
}
