//! The sockets of a base: on each address one for TCP, one for UDP on the same port, one for UDP two ports above.
//!
//! The second UDP socket lets a host see whether its NAT gives it the same port towards different destinations.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use bowline_proto::base::{SocketId, UdpAddress};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    config::{Config, DEFAULT_PORT, SECOND_PORT_OFFSET},
    resources::descriptors_for,
};

/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 4_096;
/// Asked of the system for each UDP socket, which may give less: some 450 datagrams, a millisecond or two of one worker. What waits longer
/// than that is worth less than what comes after it.
pub(crate) const UDP_BUFFER: usize = 1 << 20;
/// Sockets of each worker on each port, where there are descriptors for them ([`lanes_within`]). The system spreads senders over them, and the worker takes from them by turns: who sends more
/// than there is time for fills his own socket, and the others lose nothing by it.
#[cfg(target_os = "linux")]
pub(crate) const LANES: usize = 16;
#[cfg(not(target_os = "linux"))]
pub(crate) const LANES: usize = 1;
/// One in so many of the descriptors that a process may have is for these sockets; the others are for who connects.
const LANES_SHARE: u64 = 4;
/// With port 0, the port the system gave TCP may be taken for UDP: tried again with others.
const FREE_PORT_TRIES: usize = 16;

/// Why a base cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "{transport} port {port} is in use on {ip}: another base or program listens there; \
         stop it or choose another address with `listen`",
        ip = .address.ip(), port = .address.port()
    )]
    InUse {
        /// "TCP" or "UDP".
        transport: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The port of the second UDP socket is in use.
    #[error(
        "UDP port {port} is in use on {ip}: a base needs it beside port {main}, two above it; \
         stop what uses it or choose another address with `listen`",
        ip = .address.ip(), port = .address.port()
    )]
    SecondInUse {
        /// The address that is taken.
        address: SocketAddr,
        /// The port that was asked for.
        main: u16,
    },
    /// There is no port two above.
    #[error("port {0} cannot be used: a base needs a second UDP port two above it, so 65533 is the highest")]
    NoSecondPort(u16),
    /// The system does not let this user have the port.
    #[error("not permitted to listen on {0}: ports under 1024 need the administrator's rights")]
    NotPermitted(SocketAddr),
    /// The machine does not have the address.
    #[error("cannot listen on {0}: this machine does not have the address")]
    NoSuchAddress(SocketAddr),
    /// Everything else the system may say.
    #[error("cannot listen on {address} ({transport}): {error}")]
    System {
        /// "TCP" or "UDP".
        transport: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// Not one device could connect.
    #[error(
        "the system gives this process {0} file descriptors, which leaves none to devices: raise it (LimitNOFILE= in a systemd \
         unit, `ulimit -Hn` in a shell)"
    )]
    Descriptors(u64),
    /// The admin address.
    #[error("cannot serve the admin address {address}: {error}; choose another with `admin`")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// The list of allowed devices.
    #[error(transparent)]
    List(#[from] crate::allow::ListError),
    /// The service that knows about devices.
    #[error(transparent)]
    Hook(#[from] crate::hook::HookError),
    /// The cluster cannot be joined as it is configured.
    #[error(transparent)]
    Cluster(#[from] bowline_cluster::ConfigError),
    /// The kernel does not forward by itself.
    #[error(transparent)]
    FastPath(#[from] bowline_fastpath::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// The sockets of one listening address, not yet part of a runtime.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) tcp: TcpListener,
    /// Of each port, so many sockets for each worker as it has lanes.
    pub(crate) udp: [Vec<UdpSocket>; 2],
}

/// The sockets of each worker on each port: many cores must not take all descriptors of a process that may have few.
pub(crate) fn lanes_within(descriptors: u64, config: &Config) -> usize {
    let fits = |&lanes: &usize| descriptors_for(0, config.sockets(lanes)) <= descriptors / LANES_SHARE;
    std::iter::successors(Some(LANES), |lanes| Some(lanes / 2))
        .take_while(|&lanes| lanes > 1)
        .find(fits)
        .unwrap_or(1)
}

/// Opens the sockets of all listening addresses.
pub(crate) fn open_all(config: &Config, lanes: usize) -> Result<Vec<Listening>, BindError> {
    let sockets = config.workers() * lanes;
    if !config.listen.is_empty() {
        return config.listen.iter().map(|&address| open(address, sockets)).collect();
    }
    let mut all = vec![open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)), sockets)?];
    match open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT)), sockets) {
        Ok(v6) => all.push(v6),
        Err(error @ (BindError::NoSuchAddress(_) | BindError::System { .. })) => {
            tracing::warn!(%error, "no IPv6");
        }
        Err(error) => return Err(error),
    }
    Ok(all)
}

fn open(address: SocketAddr, sockets: usize) -> Result<Listening, BindError> {
    let mut tries = if address.port() == 0 { FREE_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match open_once(address, sockets) {
            Err(BindError::InUse { .. }) if tries > 0 => {}
            other => return other,
        }
    }
}

fn open_once(address: SocketAddr, sockets: usize) -> Result<Listening, BindError> {
    let any_port = address.port() == 0;
    let tcp = listen_tcp(address)?;
    let main = tcp.local_addr().map_err(|e| failed("TCP", address, e))?;
    let first = bind_udp(main, sockets)?;
    let second = match main.port().checked_add(SECOND_PORT_OFFSET) {
        _ if any_port => SocketAddr::new(main.ip(), 0),
        Some(port) => SocketAddr::new(main.ip(), port),
        None => return Err(BindError::NoSecondPort(main.port())),
    };
    let second = bind_udp(second, sockets).map_err(|e| match e {
        BindError::InUse { address, .. } => BindError::SecondInUse { address, main: main.port() },
        other => other,
    })?;
    Ok(Listening { tcp, udp: [first, second] })
}

fn listen_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = socket(address, Type::STREAM, Protocol::TCP)?;
        // A restarted base takes its port back from connections that are still winding down.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|e| failed("TCP", address, e))
}

/// The sockets of all workers on one port, over which the system spreads what comes.
fn bind_udp(address: SocketAddr, sockets: usize) -> Result<Vec<UdpSocket>, BindError> {
    let open = || {
        let open_one = || -> io::Result<Socket> {
            let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
            ask_for_buffers(&socket);
            Ok(socket)
        };
        let first = open_one()?;
        // The first one takes the port for itself, or fails: shared from the start, two bases would each get a half of everything.
        first.bind(&address.into())?;
        let bound = first.local_addr()?;
        let mut all = vec![first];
        for _ in 1..sockets {
            let socket = open_one()?;
            share_port(&all[0])?;
            share_port(&socket)?;
            socket.bind(&bound)?;
            all.push(socket);
        }
        Ok(all.into_iter().map(UdpSocket::from).collect())
    };
    open().map_err(|e| failed("UDP", address, e))
}

/// The system may give less than asked for; that is no reason not to start.
fn ask_for_buffers(socket: &Socket) {
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
}

#[cfg(target_os = "linux")]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(target_os = "linux"))]
fn share_port(_: &Socket) -> io::Result<()> {
    Ok(())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn failed(transport: &'static str, address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { transport, address },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted(address),
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
        _ => BindError::System { transport, address, error },
    }
}

/// What hosts that connect to listening address number `at` are told of UDP sockets: its own, under the address they
/// reached it at (`::`) or the advertised one, then those of the other family where that one's address is known, so that
/// a host with both families learns its reflexive addresses in both. `public`: the machine's own address of a family, IPv4 or not.
pub(crate) fn udp_addresses(
    at: usize,
    tcp: &[SocketAddr],
    udp: &[[(SocketId, SocketAddr); 2]],
    advertise: &[IpAddr],
    public: impl Fn(bool) -> Option<IpAddr>,
) -> Vec<UdpAddress> {
    let advertised = |v4: bool| advertise.iter().copied().find(|ip| ip.is_ipv4() == v4);
    let named = |sockets: &[(SocketId, SocketAddr); 2], ip: IpAddr| {
        sockets.map(|(socket, local)| UdpAddress { address: SocketAddr::new(ip, local.port()), socket })
    };
    let own = advertised(tcp[at].is_ipv4()).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let mut list = named(&udp[at], own).to_vec();
    let other =
        tcp.iter().zip(udp).filter(|(t, _)| t.is_ipv4() != tcp[at].is_ipv4()).find_map(|(t, sockets)| {
            let bound = if t.ip().is_unspecified() { public(t.is_ipv4()) } else { Some(t.ip()) };
            Some((sockets, advertised(t.is_ipv4()).or(bound)?))
        });
    if let Some((sockets, ip)) = other {
        list.extend(named(sockets, ip));
    }
    list
}

/// The machine's address of this family, if it sends to others elsewhere by one that means this machine to them, too.
pub(crate) fn public_address(v4: bool) -> Option<IpAddr> {
    leaves_from(v4).filter(|&ip| is_public(ip))
}

/// The address of this family by which this machine would send to others elsewhere. Nothing is sent: the system only looks up
/// the way.
pub(crate) fn leaves_from(v4: bool) -> Option<IpAddr> {
    // Addresses for documentation, which nobody has.
    let (any, elsewhere): (IpAddr, IpAddr) = if v4 {
        (Ipv4Addr::UNSPECIFIED.into(), [192, 0, 2, 1].into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into())
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((elsewhere, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Not of a range that means another machine in every network.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(is_shared || ip.is_private() || ip.is_link_local() || ip.is_loopback() || ip.is_unspecified())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback() || ip.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_that_listens_everywhere_is_told_of_in_both_families_where_its_own_address_means_it() {
        let tcp: Vec<SocketAddr> = ["0.0.0.0:4477", "[::]:4477"].map(|a| a.parse().unwrap()).to_vec();
        let udp: Vec<[(SocketId, SocketAddr); 2]> =
            (0..).zip(&tcp).map(|(n, &a)| [(SocketId(2 * n), a), (SocketId(2 * n + 1), a)]).collect();
        let told = |at: usize, own: &str, advertise: &[IpAddr]| -> Vec<IpAddr> {
            let own: IpAddr = own.parse().unwrap();
            let public = |v4: bool| Some(own).filter(|&ip| ip.is_ipv4() == v4 && is_public(ip));
            let list = udp_addresses(at, &tcp, &udp, advertise, public);
            list.iter().step_by(2).map(|udp| udp.address.ip()).collect()
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let reached = ip("::");
        assert_eq!(told(1, "203.0.113.9", &[]), [reached, ip("203.0.113.9")], "who came by IPv6");
        assert_eq!(told(0, "2001:db8::9", &[]), [reached, ip("2001:db8::9")], "who came by IPv4");
        for elsewhere in ["10.0.0.9", "192.168.1.9", "100.64.0.9", "169.254.1.9"] {
            assert_eq!(told(1, elsewhere, &[]), [reached], "{elsewhere} is another machine elsewhere");
        }
        assert_eq!(told(0, "fd00::9", &[]), [reached], "a unique local address is another network's");
        let advertised = [ip("198.51.100.7")];
        assert_eq!(
            told(1, "203.0.113.9", &advertised),
            [reached, advertised[0]],
            "what the operator says counts"
        );
    }
}
