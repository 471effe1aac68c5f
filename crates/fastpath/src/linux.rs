//! The program in the kernel, and the copy of the table that it reads.
//!
//! The layouts are those of `bpf/relay.bpf.c`. One lock is around all that is written: by the machine's thread, and by the workers when a
//! device has shown that it is still there.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
    util::KernelVersion,
};
use bowline_proto::{
    DeviceId,
    base::{Follower, Limits, Reached, SharedBudget, SourceKey},
    bucket::Rate,
};
use nix::{
    net::if_::if_nametoindex,
    sys::utsname::uname,
    time::{ClockId, clock_gettime},
};

use crate::{Counts, Error, Setup, budgets::Budgets};

static PROGRAM: &[u8] = aya::include_bytes_aligned!("../bpf/relay.bpf.o");

/// The link that goes with its process came with this version (TCX).
const OLDEST: KernelVersion = KernelVersion::new(6, 6, 0);
/// Addresses that devices send from, for each on average: to two ports of the base, over IPv4 and IPv6.
const SOURCES_PER_DEVICE: usize = 4;
/// Sessions for each device: one may linger beside the one that is there.
const BUDGETS_PER_DEVICE: usize = 2;
/// What is gone is freed in batches.
const BUDGETS_BESIDE: usize = 1_024;
/// Ports and addresses at which the base is reached: those that devices came to last. What comes to others goes by the sockets.
const MOST_LOCALS: usize = 16;

type Local = [u8; 24];
/// Whose it is, his budget, and the seal of that; what the program says of it: when it was heard, and one thing that is nobody else's
/// business.
type Source = [u8; 48];
/// What stands before the data of a message to or from a device, type and the byte behind it left zero.
type Header = [u8; 16];
type Leg = [u8; 88];
/// What the base writes of it, the time and the seal apart.
const LEG_WRITTEN: std::ops::Range<usize> = 0..40;
const LEG_UNTIL: std::ops::Range<usize> = 40..48;
/// So many bits of nanoseconds are one in what the program says of when it has heard a source; as many bits above are of the seal.
const HEARD: u32 = 20;

/// The fast path, while this lives.
pub struct FastPath {
    tables: Mutex<Tables>,
    sockets: Vec<SocketAddr>,
    clock: Clock,
    /// Where there are limits.
    budgets: Option<Arc<Budgets>>,
    /// Holds the program and its links.
    _program: Ebpf,
}

struct Tables {
    locals: Array<MapData, [Local; MOST_LOCALS]>,
    /// What is in it.
    known: Vec<Local>,
    sources: HashMap<MapData, [u8; 24], Source>,
    legs: HashMap<MapData, Header, Leg>,
    counted: PerCpuArray<MapData, [u64; 4]>,
    /// It has been said that something did not go in.
    said: bool,
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastPath").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

impl FastPath {
    /// Loads the program, and attaches it to the interfaces.
    ///
    /// # Errors
    /// When the system cannot, this process may not, or an interface is none for it.
    pub fn start(setup: Setup<'_>) -> Result<Arc<Self>, Error> {
        if KernelVersion::current().is_ok_and(|version| version < OLDEST) {
            let release = uname().map(|names| names.release().to_string_lossy().into_owned());
            return Err(Error::System(format!("Linux {}", release.unwrap_or_default())));
        }
        // By their numbers: one may have several names.
        let mut interfaces = BTreeMap::new();
        for name in setup.interfaces {
            interfaces.insert(check_interface(name)?, name.as_str());
        }
        let devices = u32::try_from(setup.devices).unwrap_or(u32::MAX).max(1);
        let sources =
            u32::try_from(setup.devices.saturating_mul(SOURCES_PER_DEVICE)).unwrap_or(u32::MAX).max(1);
        let clock = Clock::new();
        let limits = setup.limits.map(|limits| limits_of(&limits, clock)).unwrap_or_default();
        let budgets = setup.devices.saturating_mul(BUDGETS_PER_DEVICE).saturating_add(BUDGETS_BESIDE);
        let budgets = if setup.limits.is_some() { u32::try_from(budgets).unwrap_or(u32::MAX) } else { 1 };
        let mut program = EbpfLoader::new()
            .override_global("limits", &limits, true)
            .map_max_entries("budgets", budgets)
            .map_max_entries("legs", devices)
            .map_max_entries("sources", sources)
            .load(PROGRAM)
            .map_err(|error| refused("loading its tables", &error))?;
        attach(&mut program, interfaces.into_values())?;
        // Last: it stays when the rest is gone.
        let_look_up_ways()?;
        let tables = Tables {
            locals: table(&mut program, "locals")?,
            known: Vec::new(),
            sources: table(&mut program, "sources")?,
            legs: table(&mut program, "legs")?,
            counted: table(&mut program, "counted")?,
            said: false,
        };
        let map = setup.limits.map(|_| map(&mut program, "budgets")).transpose()?;
        let budgets = map.map(|map| Budgets::of(map, budgets)).transpose()?;
        let sockets = setup.sockets.to_vec();
        Ok(Arc::new(Self { tables: Mutex::new(tables), sockets, clock, budgets, _program: program }))
    }

    /// What it has forwarded.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let tables = self.tables();
        let Ok(cores) = tables.counted.get(&0, 0) else { return Counts::default() };
        let sum = |at: usize| cores.iter().map(|counts| counts[at]).sum();
        Counts { messages: sum(0), bytes: sum(1), over_rate: sum(2), no_way: sum(3) }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each change of a map is whole by itself.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the base sends from, on that leg.
    fn from(&self, leg: &Reached) -> Option<SocketAddr> {
        let bound = self.sockets.get(usize::from(leg.via.socket.0))?;
        let ip = leg.via.ip.or_else(|| Some(bound.ip()).filter(|ip| !ip.is_unspecified()))?;
        Some(SocketAddr::new(ip, bound.port()))
    }

    fn leg(&self, device: &Header, leg: &Reached) -> Option<Leg> {
        let from = self.from(leg)?;
        if matches!(leg.to, SocketAddr::V6(to) if to.scope_id() != 0) {
            return None; // the interface would have to be named
        }
        let mut bytes = [0; 88];
        bytes[..16].copy_from_slice(&octets(from.ip()));
        bytes[16..32].copy_from_slice(&octets(leg.to.ip()));
        bytes[32..34].copy_from_slice(&from.port().to_be_bytes());
        bytes[34..36].copy_from_slice(&leg.to.port().to_be_bytes());
        bytes[36..40].copy_from_slice(&u32::try_from(leg.limit).unwrap_or(u32::MAX).to_ne_bytes());
        bytes[LEG_UNTIL].copy_from_slice(&self.clock.nanos(leg.until).to_ne_bytes());
        seal(device, &mut bytes, LEG_UNTIL.end);
        Some(bytes)
    }
}

impl Follower for FastPath {
    fn budget(&self) -> Option<Box<dyn SharedBudget>> {
        Some(Box::new(self.budgets.as_ref()?.give()?))
    }

    fn seized(&self, source: &SourceKey, device: DeviceId, budget: Option<u32>) {
        if is_loopback(source) {
            return; // what comes in by an interface from there is a lie
        }
        let mut value = [0; 48];
        value[..16].copy_from_slice(&header(device));
        // Where there are limits, a number that is no budget's forwards nothing.
        value[16..24].copy_from_slice(&u64::from(budget.unwrap_or(u32::MAX)).to_ne_bytes());
        seal(source.as_bytes(), &mut value, 24);
        let mut tables = self.tables();
        let done = tables.sources.insert(source.as_bytes(), value, 0);
        if let Err(error) = done {
            // Whoever was there before must not have what comes from there.
            let _ = tables.sources.remove(source.as_bytes());
            tables.say(&error);
        }
    }

    fn let_go(&self, source: &SourceKey) {
        let _ = self.tables().sources.remove(source.as_bytes()); // it may never have gone in
    }

    fn placed(&self, device: DeviceId, leg: Option<Reached>) {
        let key = header(device);
        let bytes = leg.and_then(|leg| self.leg(&key, &leg).zip(self.from(&leg)).map(|found| (leg, found)));
        let mut tables = self.tables();
        let Some((leg, (bytes, from))) = bytes else {
            let _ = tables.legs.remove(&key); // it may never have gone in
            return;
        };
        tables.know(from, leg.via.socket.0);
        // A worker may have heard the device while the machine looked: the same leg never gets shorter.
        if tables.known_until(&key, &bytes).is_some_and(|known| known >= until(&bytes)) {
            return;
        }
        if let Err(error) = tables.legs.insert(key, bytes, 0) {
            let _ = tables.legs.remove(&key);
            tables.say(&error);
        }
    }

    fn lives(&self, device: DeviceId, leg: Reached) {
        let key = header(device);
        let Some(bytes) = self.leg(&key, &leg) else { return };
        let mut tables = self.tables();
        if tables.known_until(&key, &bytes).is_some_and(|known| known < until(&bytes)) {
            let _ = tables.legs.insert(key, bytes, 0); // the old one counts for a while yet
        }
    }

    fn heard(&self, source: &SourceKey) -> Option<Instant> {
        let value = self.tables().sources.get(source.as_bytes(), 0).ok()?;
        let [seal, heard] = [24, 32].map(|at| word(&value[at..]));
        // Else somebody else was heard, who had been there before.
        let ours = heard >> (u64::BITS - HEARD) == seal >> (u64::BITS - HEARD);
        let nanos = heard << HEARD;
        (ours && nanos != 0).then(|| self.clock.moment(nanos))
    }
}

impl Tables {
    /// Until when this leg counts, if it is the one that is known.
    fn known_until(&self, device: &Header, leg: &Leg) -> Option<u64> {
        let known = self.legs.get(device, 0).ok()?;
        (known[LEG_WRITTEN] == leg[LEG_WRITTEN]).then(|| until(&known))
    }

    /// Messages to there are for this socket. An address at which a device has found the base is one of the base's own.
    fn know(&mut self, local: SocketAddr, socket: u16) {
        let mut key = [0; 24];
        key[..16].copy_from_slice(&octets(local.ip()));
        key[16..18].copy_from_slice(&local.port().to_be_bytes());
        key[18..20].copy_from_slice(&socket.to_be_bytes());
        if self.known.contains(&key) {
            return;
        }
        if self.known.len() == MOST_LOCALS {
            self.known.remove(0); // a machine's addresses change (RFC 8981), and nobody says when one has gone
        }
        self.known.push(key);
        let mut list = [[0; 24]; MOST_LOCALS];
        list[..self.known.len()].copy_from_slice(&self.known);
        if let Err(error) = self.locals.set(0, list, 0) {
            self.known.pop();
            self.say(&error);
        }
    }

    /// Once: what does not go in goes by the sockets.
    fn say(&mut self, error: &MapError) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(%error, "the fast path does not take some devices: they are relayed by the sockets");
        }
    }
}

/// The kernel's clock, beside that of `Instant`, which is the same one and does not show its numbers.
#[derive(Debug, Clone, Copy)]
struct Clock {
    at: Instant,
    nanos: u64,
}

impl Clock {
    fn new() -> Self {
        // In this order: should this thread have to wait in between, the program's clock is behind that of the workers, and nobody gets more.
        let at = Instant::now();
        let since_boot = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self { at, nanos: since_boot.as_nanos() as u64 }
    }

    fn nanos(&self, moment: Instant) -> u64 {
        match moment.checked_duration_since(self.at) {
            Some(later) => self.nanos.saturating_add(later.as_nanos() as u64),
            None => self.nanos.saturating_sub((self.at - moment).as_nanos() as u64),
        }
    }

    fn moment(&self, nanos: u64) -> Instant {
        match nanos.checked_sub(self.nanos) {
            Some(later) => self.at + Duration::from_nanos(later),
            None => self.at.checked_sub(Duration::from_nanos(self.nanos - nanos)).unwrap_or(self.at),
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn is_loopback(source: &SourceKey) -> bool {
    let ip = source.as_bytes().first_chunk::<16>().map(|octets| IpAddr::from(*octets));
    ip.is_some_and(|ip| ip.to_canonical().is_loopback())
}

fn header(device: DeviceId) -> Header {
    let mut header = [0; 16];
    header[1..15].copy_from_slice(device.as_bytes());
    header
}

fn until(leg: &Leg) -> u64 {
    word(&leg[LEG_UNTIL])
}

/// The first eight bytes.
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word))
}

/// Puts behind so many bytes of a value what the program knows by that they are whole, and those of this key.
fn seal(key: &[u8], value: &mut [u8], length: usize) {
    const SEAL: u64 = 0x9e37_79b9_7f4a_7c15;
    let words = key.chunks(8).chain(value[..length].chunks(8)).map(word);
    let factors = std::iter::successors(Some(SEAL), |factor| Some(factor.wrapping_mul(SEAL)));
    let sum =
        words.zip(factors).fold(0_u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(factor)));
    value[length..length + 8].copy_from_slice(&sum.to_ne_bytes());
}

fn table<T>(program: &mut Ebpf, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    T::try_from(map(program, name)?)
        .map_err(|error| Error::Kernel { doing: "opening its tables", error: error.to_string() })
}

fn map(program: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, Error> {
    program.take_map(name).ok_or(Error::Kernel { doing: "opening its tables", error: name.to_owned() })
}

/// As the program reads them.
fn limits_of(limits: &Limits, clock: Clock) -> [u64; 6] {
    let of = |rate: Option<Rate>| {
        let every = rate.map_or(0, |rate| rate.every.as_nanos() as u64);
        [every, every * rate.map_or(0, |rate| u64::from(rate.burst))]
    };
    let ([message, messages], [unit, units]) = (of(limits.messages), of(limits.units));
    [clock.nanos(limits.start), message, messages, unit, units, limits.unit.ilog2().into()]
}

fn attach<'a>(program: &mut Ebpf, interfaces: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let program = program
        .program_mut("bowline_relay")
        .and_then(|program| <&mut SchedClassifier>::try_from(program).ok());
    let program =
        program.ok_or(Error::Kernel { doing: "loading it", error: "no such program".to_owned() })?;
    program.load().map_err(|error| refused("loading it", &error))?;
    for interface in interfaces {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        program
            .attach_with_options(interface, TcAttachType::Ingress, options)
            .map_err(|error| refused("attaching it to an interface", &error))?;
    }
    Ok(())
}

/// The number of an interface. Its packets have to begin with an Ethernet header: those of tunnels begin with the IP header, and would be
/// misread.
fn check_interface(name: &str) -> Result<usize, Error> {
    const ETHERNET: u16 = 1;
    const LOOPBACK: u16 = 772;
    let number = if_nametoindex(name).map_err(|_| Error::NoInterface(name.to_owned()))? as usize;
    let addresses = nix::ifaddrs::getifaddrs()
        .map_err(|error| Error::Kernel { doing: "listing interfaces", error: error.to_string() })?;
    let kind = addresses
        .filter_map(|address| Some(*address.address?.as_link_addr()?))
        .find_map(|link| (link.ifindex() == number).then(|| link.hatype()));
    match kind {
        Some(ETHERNET | LOOPBACK) => Ok(number),
        _ => Err(Error::NotEthernet(name.to_owned())),
    }
}

/// The kernel looks up ways for packets that come in only where it forwards such; the program asks as for the machine's own, from `lo`.
fn let_look_up_ways() -> Result<(), Error> {
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/lo/forwarding");
        match fs::read_to_string(&path) {
            Ok(now) if now.trim() == "1" => {}
            // A system without this family; or one where this process may not even look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(
                    "there is no {path}: if it is not 1, the fast path finds no way over {family}"
                );
            }
            _ => keeping_default_routes(family, || fs::write(&path, "1"))
                .map_err(|error| Error::Ways { family, error })?,
        }
    }
    Ok(())
}

/// Where anything forwards IPv6, however little, the kernel throws away all default routes that routers have advertised, until they do again,
/// minutes later: but for interfaces that take them as a router (`accept_ra` 2).
fn keeping_default_routes(family: &str, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let interfaces = fs::read_dir(format!("/proc/sys/net/{family}/conf"))?;
    let settings = interfaces.filter_map(|interface| Some(interface.ok()?.path().join("accept_ra")));
    let taken = settings.filter(|path| fs::read_to_string(path).is_ok_and(|value| value.trim() == "1"));
    let taken: Vec<_> = taken.collect();
    // An interface may be gone by now; where nothing may be written, `change` says so.
    let set = |value| taken.iter().for_each(|path| drop(fs::write(path, value)));
    set("2");
    let done = change();
    set("1");
    done
}

fn refused(doing: &'static str, error: &(dyn std::error::Error + 'static)) -> Error {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    let not_permitted = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    if causes().any(not_permitted) {
        return Error::NotPermitted;
    }
    Error::Kernel { doing, error: causes().map(ToString::to_string).collect::<Vec<_>>().join(": ") }
}
