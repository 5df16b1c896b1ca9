//! What `plenary status` and `plenary members list` print. Asks nobody but the one node.

use super::client::{Client, Error, text};
use crate::machine::reply::Reply;
use crate::node::status::{MemberStatus, Role, Status};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A node's answer to `PLENARY STATUS`: JSON, of this version or a later one.
pub(super) struct Answer {
    address: String,
    json: String,
}

/// Asks the node for the cluster's status.
pub(super) fn ask_status(client: &mut Client) -> Result<Answer, Error> {
    let address = client.address().to_owned();
    match client.call(&["PLENARY", "STATUS"])? {
        Reply::Bulk(bytes) => Ok(Answer {
            address,
            json: String::from_utf8_lossy(&bytes).into_owned(),
        }),
        other => Err(Error::Strange {
            address,
            why: format!("PLENARY STATUS answered {other:?}"),
        }),
    }
}

impl Answer {
    /// Whether the node serves, and no member's state differs from its own.
    pub(super) fn is_well(&self) -> Result<bool, Error> {
        let status: Status = self.read()?;
        Ok(status.ready && status.differing_members.is_empty())
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.json).map_err(|error| Error::Strange {
            address: self.address.clone(),
            why: format!("PLENARY STATUS answered JSON that cannot be read: {error}"),
        })
    }
}

/// All the node said, what this version does not know included, indented.
pub(super) fn json(answer: &Answer) -> Result<String, Error> {
    let value: serde_json::Value = answer.read()?;
    Ok(format!("{value:#}\n"))
}

/// The node, its cluster, and the table of members.
pub(super) fn status(answer: &Answer) -> Result<String, Error> {
    Ok(overview(&answer.read()?))
}

/// The table of members.
pub(super) fn members(answer: &Answer) -> Result<String, Error> {
    Ok(table(&answer.read()?))
}

fn overview(status: &Status) -> String {
    let mut out = String::new();
    let or = |id: Option<u64>, none: &str| id.map_or_else(|| none.to_owned(), |id| id.to_string());
    let rows = [
        (
            "node",
            format!(
                "{} ({}, plenary {}, up {})",
                status.node_id,
                role(Some(status.role)),
                status.version,
                age(status.uptime_ms)
            ),
        ),
        (
            "serves",
            if status.ready {
                "yes".to_owned()
            } else {
                "no".to_owned()
            },
        ),
        ("cluster", or(status.cluster_id, "none yet")),
        ("leader", or(status.leader_id, "none known")),
        ("term", status.term.to_string()),
        (
            "applied",
            format!(
                "{} (committed {}, snapshot {})",
                status.applied_index, status.committed_index, status.snapshot_index
            ),
        ),
        ("durability", status.durability.clone()),
        (
            "keys",
            format!(
                "{} ({} bytes, {} expired so far)",
                status.keys, status.used_bytes, status.expired_keys
            ),
        ),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<11} {value}").expect("a String takes every write");
    }
    if let Some(fault) = &status.fault {
        writeln!(out, "{:<11} {fault}", "fault").expect("a String takes every write");
    }
    out.push('\n');
    out.push_str(&table(status));
    out
}

fn table(status: &Status) -> String {
    let mut rows = vec![["MEMBER", "ROLE", "VOTES", "PEERS", "REDIS", "APPLIED", "LAG"].map(str::to_owned)];
    rows.extend(status.members.iter().map(row));
    aligned(&rows)
}

/// Rows in columns that are as wide as they must be.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
            .expect("a String takes every write");
    }
    out
}

/// The access keys, as `PLENARY KEYS SHOW` answers them.
pub(super) fn keys(reply: &Reply) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = |at: &str| match at.parse::<u128>() {
        Ok(at) => format!(
            "{} ago",
            age(u64::try_from(now.as_millis().saturating_sub(at)).unwrap_or(u64::MAX))
        ),
        Err(_) => "-".to_owned(),
    };
    let mut rows = vec![["KEY", "SHA-256", "SET", "USED HERE"].map(str::to_owned)];
    for key in maps(reply) {
        let [name, fingerprint, since, used] = ["key", "fingerprint", "since", "used"].map(|field| {
            key.iter()
                .find(|(known, _)| known == field)
                .map(|(_, value)| value.as_str())
                .unwrap_or_default()
        });
        let fingerprint = if fingerprint.is_empty() {
            "none"
        } else {
            fingerprint
        };
        rows.push([name.to_owned(), fingerprint.to_owned(), ago(since), ago(used)]);
    }
    aligned(&rows)
}

/// What was refused, as `PLENARY COMPAT` answers it.
pub(super) fn compat(reply: &Reply) -> String {
    let mut rows = vec![["COUNT", "CLIENT", "WHAT"].map(str::to_owned)];
    for refused in maps(reply) {
        rows.push(["count", "client", "what"].map(|field| {
            refused
                .iter()
                .find(|(known, _)| known == field)
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        }));
    }
    if rows.len() == 1 {
        return "nothing was refused so far\n".to_owned();
    }
    aligned(&rows)
}

/// An array of maps, each as its pairs; nil is nothing.
fn maps(reply: &Reply) -> Vec<Vec<(String, String)>> {
    let said = |reply: &Reply| match reply {
        Reply::Nil => String::new(),
        other => text(other),
    };
    let Reply::Array(items) = reply else {
        return Vec::new();
    };
    let pairs = |item: &Reply| match item {
        Reply::Map(pairs) => pairs
            .iter()
            .map(|(name, value)| (said(name), said(value)))
            .collect(),
        Reply::Array(flat) => flat
            .chunks(2)
            .filter(|pair| pair.len() == 2)
            .map(|pair| (said(&pair[0]), said(&pair[1])))
            .collect(),
        _ => Vec::new(),
    };
    items.iter().map(pairs).collect()
}

fn row(member: &MemberStatus) -> [String; 7] {
    let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let or_none = |address: &str| {
        if address.is_empty() {
            "-".to_owned()
        } else {
            address.to_owned()
        }
    };
    [
        member.id.to_string(),
        role(member.role).to_owned(),
        if member.voter { "yes" } else { "no" }.to_owned(),
        or_none(&member.raft_addr),
        or_none(&member.resp_addr),
        number(member.applied_index),
        number(member.lag),
    ]
}

fn role(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Leader) => "leader",
        Some(Role::Follower) => "follower",
        Some(Role::Candidate) => "candidate",
        Some(Role::Learner) => "learner",
        Some(Role::Forming) => "forming",
        Some(Role::Stopped) => "stopped",
        None => "no answer",
    }
}

fn age(ms: u64) -> String {
    let s = ms / 1000;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, ..) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"node_id":8,"cluster_id":77,"role":"follower","leader_id":9,"term":4,"last_log_index":120,
        "committed_index":119,"applied_index":118,"snapshot_index":100,"members":[
        {"id":8,"raft_addr":"127.0.0.1:7001","resp_addr":"127.0.0.1:6379","voter":true,"role":"follower","applied_index":118,"lag":2},
        {"id":9,"raft_addr":"127.0.0.1:7002","resp_addr":"","voter":true,"role":"leader","applied_index":120,"lag":0},
        {"id":10,"raft_addr":"127.0.0.1:7003","resp_addr":"","voter":false,"role":null,"applied_index":null,"lag":null}],
        "ready":true,"fault":null,"durability":"fsync","version":"0.1.0","uptime_ms":3725000,"keys":3,"used_bytes":99,
        "expired_keys":1,"proposed_commands":5,"proposed_groups":4,"of_a_later_version":[1]}"#;

    fn answer(json: &str) -> Answer {
        Answer {
            address: "here".to_owned(),
            json: json.to_owned(),
        }
    }

    #[test]
    fn the_status_is_a_table() {
        let expected = "\
node        8 (follower, plenary 0.1.0, up 1h2m)
serves      yes
cluster     77
leader      9
term        4
applied     118 (committed 119, snapshot 100)
durability  fsync
keys        3 (99 bytes, 1 expired so far)

MEMBER  ROLE       VOTES  PEERS           REDIS           APPLIED  LAG
8       follower   yes    127.0.0.1:7001  127.0.0.1:6379  118      2
9       leader     yes    127.0.0.1:7002  -               120      0
10      no answer  no     127.0.0.1:7003  -               ?        ?
";
        assert_eq!(status(&answer(SAID)).expect("good"), expected);
        assert!(expected.ends_with(&members(&answer(SAID)).expect("good")));
    }

    #[test]
    fn a_fault_is_shown() {
        let said = SAID.replace(r#""fault":null"#, r#""fault":"disk full""#);
        assert!(
            status(&answer(&said))
                .expect("good")
                .contains("fault       disk full\n")
        );
    }

    #[test]
    fn json_keeps_what_a_later_version_says() {
        assert!(json(&answer(SAID)).expect("good").contains("of_a_later_version"));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(status(&answer("{}")).is_err());
        assert!(json(&answer("nothing")).is_err());
    }
}
