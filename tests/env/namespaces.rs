//! Hosts with a network between them, as network namespaces.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::oracle::report_skipped;

/// The delay of each way, and the share of packets that are lost, if the kernel can do that.
const LINK: [&str; 5] = ["netem", "delay", "10ms", "loss", "1%"];

/// Hosts and their network, which are removed when the value is dropped.
pub struct Network {
    /// The switch and then the hosts, by the names of their namespaces.
    names: Vec<String>,
    /// The third number of all addresses.
    number: u32,
    /// Whether the kernel delays and loses packets.
    is_slow: bool,
}

impl Network {
    /// Creates `count` hosts. Returns `None` if this process may not, and the test is skipped.
    pub fn start(count: usize) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed)) % 250 + 1;
        let name = |index| format!("rbr-{}-{number}-{index}", std::process::id());
        let mut network = Network { names: Vec::new(), number, is_slow: true };
        if !try_ip(&["netns", "add", &name(0)]) {
            report_skipped("network namespaces are not permitted");
            return None;
        }
        network.names.push(name(0));
        if !try_ip(&["-n", &name(0), "link", "add", "switch", "type", "bridge"]) {
            report_skipped("this kernel has no network bridges");
            return None;
        }
        // From here on everything must work
        ip(&["-n", &name(0), "link", "set", "switch", "up"]);
        for index in 1..=count {
            network.add_host(&name(index), index);
        }
        Some(network)
    }

    fn add_host(&mut self, name: &str, index: usize) {
        ip(&["netns", "add", name]);
        self.names.push(name.to_owned());
        let (switch, port) = (self.names[0].as_str(), format!("port{index}"));
        ip(&["link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", &port, "netns", switch]);
        ip(&["-n", switch, "link", "set", &port, "master", "switch"]);
        ip(&["-n", switch, "link", "set", &port, "up"]);
        let address = format!("10.231.{}.{index}/24", self.number);
        ip(&["-n", name, "addr", "add", &address, "dev", "eth0"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        let arguments = [&["-n", name, "qdisc", "add", "dev", "eth0", "root"], LINK.as_slice()].concat();
        let output = Command::new("tc").args(arguments).output();
        self.is_slow &= output.is_ok_and(|output| output.status.success());
    }

    /// Whether the kernel delays and loses packets. If not, the test has to do something alike.
    pub fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// The address of a host, from 0 on.
    pub fn address(&self, host: usize) -> String {
        format!("10.231.{}.{}", self.number, host + 1)
    }

    /// Does something on a host. Threads and processes that it starts stay there.
    pub fn on<T>(&self, host: usize, work: impl FnOnce() -> T) -> T {
        let _back = Back(File::open("/proc/thread-self/ns/net").expect("own namespace"));
        enter(&File::open(format!("/run/netns/{}", self.names[host + 1])).expect("namespace"));
        work()
    }

    /// Pulls the cable of a host, or plugs it in again.
    pub fn set_plugged(&self, host: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        ip(&["-n", &self.names[0], "link", "set", &format!("port{}", host + 1), state]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            try_ip(&["netns", "del", name]);
        }
    }
}

/// Returns the thread to its namespace.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        enter(&self.0);
    }
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("enter a namespace");
}

fn try_ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
