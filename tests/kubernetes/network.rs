//! A network with addresses that a test knows beforehand, and cuts in it, each direction on its own.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use crate::harness::*;

/// A network of containers. Addresses are handed out one after the other and never twice, as pods get them.
pub struct Subnet {
    pub name: String,
    first: Ipv4Addr,
    used: AtomicU8,
}

/// Addresses of one network; two are the bridge's and the broadcast's.
const SIZE: u8 = 64;

impl Subnet {
    pub fn new() -> Self {
        let name = unique("subnet");
        // Of 10.200.0.0/13, where nothing else of the tests is. Taken ones are refused.
        let mut seed = std::process::id().wrapping_mul(2_654_435_761);
        for byte in name.bytes() {
            seed = seed.wrapping_mul(31).wrapping_add(u32::from(byte));
        }
        for _ in 0..200 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [a, b, c, _] = seed.to_be_bytes();
            let first = Ipv4Addr::new(10, 200 + a % 8, b, c / SIZE * SIZE);
            let subnet = format!("{first}/26");
            if docker(&["network", "create", "--subnet", &subnet, &name]).status.success() {
                return Self { name, first, used: AtomicU8::new(1) };
            }
        }
        panic!("no free subnet was found for {name}");
    }

    /// An address that nobody had before.
    pub fn address(&self) -> Ipv4Addr {
        let n = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(n < SIZE - 1, "the addresses of {} are used up", self.name);
        let [a, b, c, d] = self.first.octets();
        Ipv4Addr::new(a, b, c, d + n)
    }
}

impl Drop for Subnet {
    fn drop(&mut self) {
        docker(&["network", "rm", &self.name]);
    }
}

/// Runs a command in the network namespace of a process, as root.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn in_network_of(pid: &str, command: &[&str]) -> Result<(), String> {
    let mut nsenter = Command::new("timeout");
    nsenter.args(["10", "nsenter", "--target", pid, "--net", "--"]).args(command);
    nsenter.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    let output = nsenter.output().expect("nsenter can be executed");
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?}: {}", stderr(&output)))
}

/// Which packets of a container are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Those that it receives.
    In,
    /// Those that it sends.
    Out,
}

pub const BOTH: [Direction; 2] = [Direction::In, Direction::Out];

/// Drops packets between the container and an address, without a word to either side. Gone with the container.
pub fn cut(container: &Container, address: &str, directions: &[Direction]) {
    let pid = container.inspect("{{.State.Pid}}");
    for direction in directions {
        let (chain, side) = match direction {
            Direction::In => ("INPUT", "-s"),
            Direction::Out => ("OUTPUT", "-d"),
        };
        let rule = ["iptables", "-w", "5", "-A", chain, side, address, "-j", "DROP"];
        in_network_of(&pid, &rule).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Ends every cut of the container. One that has ended just now has none.
pub fn heal(container: &Container) {
    let pid = container.inspect("{{.State.Pid}}");
    if let Err(e) = in_network_of(&pid, &["iptables", "-w", "5", "-F"]) {
        assert!(!container.is_running(), "{e}");
    }
}
