//! The instruments of the benchmarks: a delay line holds every packet for its time, and takes none away.

use std::time::{Duration, Instant};

use bowline_lab::{Delay, Internet, Nat, in_network};

/// One way.
const DELAY: Duration = Duration::from_millis(20);
/// By so much a packet may come late on two busy cores, in the middle of all.
const LATE: Duration = Duration::from_millis(10);

#[test]
fn a_packet_takes_its_time_each_way_over_ipv4_and_ipv6_also_through_a_nat() {
    in_network(|lab| {
        let internet = Internet::new(lab);
        let server = internet.server(lab, "server", 10);
        let home = internet.home(lab, 1, Nat::Symmetric);
        let client = home.device(lab, "client", 2);
        let _delays = [Delay::on(&server, "wan", DELAY), Delay::on(&home.router, "wan", DELAY)];
        for (own, address) in [("0.0.0.0:0", "203.0.113.10:9"), ("[::]:0", "[2001:db8:113::10]:9")] {
            let echo = server.udp(address.parse().expect("an address"));
            let socket = client.udp(own.parse().expect("an address"));
            for socket in [&echo, &socket] {
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            }
            let mut trips: Vec<_> = (0..21_u8)
                .map(|number| {
                    let sent = Instant::now();
                    socket.send_to(&[number], address).expect("sent");
                    let mut byte = [0];
                    let (_, from) = echo.recv_from(&mut byte).expect("nothing is lost");
                    echo.send_to(&byte, from).expect("sent");
                    socket.recv_from(&mut byte).expect("nothing is lost");
                    assert_eq!(byte, [number]);
                    sent.elapsed()
                })
                .collect();
            trips.sort();
            let (shortest, middle) = (trips[0], trips[trips.len() / 2]);
            lab.measured(&format!("{address}: there and back {shortest:?} … {middle:?} … {:?}", trips[20]));
            assert!(shortest >= DELAY * 2, "{shortest:?}");
            assert!(middle < DELAY * 2 + LATE, "{middle:?}");
        }
    });
}

#[test]
fn two_hundred_packets_at_once_all_come_in_order_after_their_time() {
    in_network(|lab| {
        let internet = Internet::new(lab);
        let [left, right] = [1, 2].map(|number| internet.server(lab, &format!("server{number}"), number));
        let _delay = Delay::on(&right, "wan", DELAY);
        let receiver = right.udp("203.0.113.2:9".parse().expect("an address"));
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let sender = left.udp("203.0.113.1:9".parse().expect("an address"));
        let began = Instant::now();
        // As many as the receiver's buffer holds: they come all at once as well.
        for number in 0..200_u16 {
            sender.send_to(&number.to_be_bytes(), "203.0.113.2:9").expect("sent");
        }
        for number in 0..200_u16 {
            let mut bytes = [0; 2];
            receiver.recv_from(&mut bytes).expect("nothing is lost");
            assert_eq!(u16::from_be_bytes(bytes), number);
            assert!(began.elapsed() >= DELAY);
        }
    });
}

#[test]
fn without_its_thread_a_delay_line_delays_and_loses_nothing() {
    in_network(|lab| {
        let internet = Internet::new(lab);
        let [left, right] = [1, 2].map(|number| internet.server(lab, &format!("server{number}"), number));
        drop(Delay::on(&right, "wan", Duration::from_secs(10)));
        let receiver = right.udp("203.0.113.2:9".parse().expect("an address"));
        receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        left.udp("203.0.113.1:0".parse().expect("an address")).send_to(b"!", "203.0.113.2:9").expect("sent");
        receiver.recv_from(&mut [0; 2]).expect("it passes at once");
    });
}
