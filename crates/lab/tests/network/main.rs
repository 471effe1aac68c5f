//! Behaviour over real sockets in real-kernel networks, one per file: the listing of this folder is what the layer does.
//!
//! Each file says in its opening comment which row of the first issue it holds. All run the real `bowline` program, one of them the library of
//! streams beside it.

mod a_base_beside_its_nats_server_is_where_its_machine_is;
mod a_base_on_a_full_disk_says_so;
mod a_base_that_dies_is_replaced;
mod a_base_that_is_silent_holds_nobody_up;
mod a_base_that_stands_still_has_its_devices_back;
mod a_base_without_ipv6_serves_ipv4;
mod a_blackholed_path_falls_back_to_the_relay;
mod a_device_that_vanishes_is_let_go;
mod a_dual_stack_base_joins_ipv4_and_ipv6;
mod a_new_address_is_taken_up_at_once;
mod a_preferred_way_that_is_dead_is_passed_by;
mod a_refusal_looks_like_an_absence;
mod a_restarted_peer_is_back;
mod a_transfer_survives_what_networks_do;
mod data_that_is_direct_is_just_the_data;
mod delays_are_kept;
mod devices_on_one_link_meet_without_a_base;
mod devices_that_vanish_from_the_bases_link_stop_nobody;
mod forged_announcements_are_ignored;
mod home_routers_are_punched;
mod links_of_1280_bytes_carry_everything;
mod marks_of_congestion_slow_streams_without_loss;
mod nats_behave_as_named;
mod networks_that_allow_the_web_alone;
mod networks_with_ipv6_alone_reach_ipv4;
mod networks_without_udp_use_tcp;
mod ports_of_symmetric_nats_are_guessed;
mod random_bytes_disturb_nobody;
mod routers_map_ports;
mod symmetric_nats_stay_on_the_relay;
mod the_kernel_forwards_for_a_base;
mod the_lab_tells_the_truth;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use bowline_lab::Node;

/// Pings come this often in tests that look for gaps.
const OFTEN: Duration = Duration::from_millis(20);
/// What takes a few round trips is done within this, on two busy cores, too.
const SOON: Duration = Duration::from_secs(5);
/// A round of HELLOs to all pairs comes every 25 s; a ladder may just have ended.
const A_ROUND: Duration = Duration::from_secs(35);
/// Both listening addresses of the base that `Internet::server(_, _, 10)` gets.
const BASE: [&str; 2] = ["203.0.113.10:4477", "[2001:db8:113::10]:4477"];
/// A base's admin address, where it has one.
const ADMIN: &str = "127.0.0.1:4480";

/// What a base counts under this name.
fn counted(node: &Node, name: &str) -> u64 {
    let page = node.enter(|| {
        let mut stream = TcpStream::connect(ADMIN).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    let value = page.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or_else(|| panic!("no {name} in {page}")).parse::<f64>().unwrap() as u64
}
