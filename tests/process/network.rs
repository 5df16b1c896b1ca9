//! A network that can be cut: each node in a network namespace of its own, all joined by a bridge in one more. What one sends to another is
//! dropped by a rule in the sender's namespace (nftables), so links can be cut in one direction. Nothing outside these namespaces is
//! touched but one end of a pair of devices, through which the test reaches the nodes whatever is cut between them.
//!
//! It needs root, `ip` and `nft`. Where the machine has not got them, [`Network::of`] says so.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// The subnets among which a free one is chosen: 198.18.0.0/15, which is set aside for tests of networks (RFC 2544).
const SUBNETS: u16 = 512;

/// Namespaces joined by a bridge; gone when it is dropped.
pub struct Network {
    /// What the names of its namespaces and devices begin with: at most 15 bytes for a device.
    name: String,
    subnet: u16,
    nodes: usize,
}

impl Network {
    /// A network for this many nodes, or a line on standard output that says why this machine has none.
    pub fn of(nodes: usize) -> Option<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let which = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = (std::process::id() as u16).wrapping_mul(7).wrapping_add(which);
        let taken = said(Command::new("ip").args(["-4", "address"])).unwrap_or_default();
        let subnet = (0..SUBNETS)
            .map(|next| first.wrapping_add(next) % SUBNETS)
            .find(|subnet| !taken.contains(&address(*subnet, 254)))?;
        let network = Self {
            name: format!("pl{}-{which}", std::process::id()),
            subnet,
            nodes,
        };
        match network.build() {
            Ok(()) => Some(network),
            Err(why) => {
                println!("NOT RUN: this machine makes no network of namespaces: {why}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let hub = self.hub();
        said(Command::new("nft").arg("--version"))?;
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        // The test's own end stays where the test is.
        self.join(&self.name, None, 254)?;
        for node in 0..self.nodes {
            let namespace = self.namespace(node);
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            self.join("net", Some(&namespace), host(node))?;
            for rule in [
                "add table ip plenary",
                "add chain ip plenary out { type filter hook output priority 0; }",
            ] {
                nft(&namespace, rule)?;
            }
        }
        Ok(())
    }

    /// A pair of devices: one end at the bridge, the other in a namespace, with this host's address.
    fn join(&self, device: &str, namespace: Option<&str>, host: u8) -> Result<(), String> {
        let (hub, port) = (self.hub(), format!("port{host}"));
        let within = |args: &[&str]| match namespace {
            Some(namespace) => ip(&[&["-n", namespace], args].concat()),
            None => ip(args),
        };
        within(&[
            "link", "add", device, "type", "veth", "peer", "name", &port, "netns", &hub,
        ])?;
        within(&[
            "address",
            "add",
            &format!("{}/24", address(self.subnet, host)),
            "dev",
            device,
        ])?;
        within(&["link", "set", device, "up"])?;
        ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    /// The namespace of a node.
    pub fn namespace(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    /// Where a node is reached.
    pub fn address(&self, node: usize) -> String {
        address(self.subnet, host(node))
    }

    /// Drops from now on whatever one node sends to another.
    pub fn cut(&self, from: usize, to: usize) {
        let rule = format!("add rule ip plenary out ip daddr {} drop", self.address(to));
        nft(&self.namespace(from), &rule).unwrap();
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, node: usize) {
        for other in (0..self.nodes).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        for node in 0..self.nodes {
            nft(&self.namespace(node), "flush table ip plenary").unwrap();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A namespace takes the devices in it along, and a device its other end. One that was never made cannot be deleted.
        for namespace in (0..self.nodes)
            .map(|node| self.namespace(node))
            .chain([self.hub()])
        {
            let _ = ip(&["netns", "delete", &namespace]);
        }
    }
}

/// The same command in a namespace. What is spawned is its process: `ip` becomes it.
pub fn within(namespace: &str, command: &Command) -> Command {
    let mut within = Command::new("ip");
    within
        .args(["netns", "exec", namespace])
        .arg(command.get_program())
        .args(command.get_args());
    for (variable, value) in command.get_envs() {
        match value {
            Some(value) => within.env(variable, value),
            None => within.env_remove(variable),
        };
    }
    within
}

fn host(node: usize) -> u8 {
    u8::try_from(node + 1).expect("a handful of nodes")
}

fn address(subnet: u16, host: u8) -> String {
    let [high, low] = subnet.to_be_bytes();
    Ipv4Addr::new(198, 18 + high, low, host).to_string()
}

fn ip(args: &[&str]) -> Result<(), String> {
    said(Command::new("ip").args(args)).map(drop)
}

fn nft(namespace: &str, rule: &str) -> Result<(), String> {
    said(Command::new("ip").args(["netns", "exec", namespace, "nft", rule])).map(drop)
}

/// What a command that must succeed says.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
