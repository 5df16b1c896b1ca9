//! The files of `cluster-examples/aspnet`: that web.config says what Microsoft's provider understands, that it and the nodes' settings fit each
//! other, and that three nodes start from those and serve what web.config asks for.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
mod process;

use bytes::BytesMut;
use common::free_port;
use plenary::cli::client::{self, Client};
use plenary::config::{Secret, Timing};
use plenary::edge::resp::decode::{decode, request};
use plenary::machine::keyspace::DATABASES;
use plenary::machine::reply::Reply;
use process::Process;
use roxmltree::{Document, Node};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What provider 5.0.4 reads of its element (`ProviderConfiguration.cs`), and .NET itself (`name`, `type`).
const ATTRIBUTES: &[(&str, Kind)] = &[
    ("accessKey", Kind::Text),
    ("applicationName", Kind::Text),
    ("connectionString", Kind::Text),
    ("connectionTimeoutInMilliseconds", Kind::Number),
    ("databaseId", Kind::Number),
    ("host", Kind::Text),
    ("loggingClassName", Kind::Text),
    ("loggingMethodName", Kind::Text),
    ("name", Kind::Text),
    ("operationTimeoutInMilliseconds", Kind::Number),
    ("port", Kind::Number),
    ("retryTimeoutInMilliseconds", Kind::Number),
    ("settingsClassName", Kind::Text),
    ("settingsMethodName", Kind::Text),
    ("ssl", Kind::Truth),
    ("throwOnError", Kind::Truth),
    ("type", Kind::Text),
];

/// What StackExchange.Redis reads of a connection string, of which the provider brings 2.6.122. It refuses what it does not know.
const OPTIONS: &[(&str, Kind)] = &[
    ("abortConnect", Kind::Truth),
    ("asyncTimeout", Kind::Number),
    ("checkCertificateRevocation", Kind::Truth),
    ("configCheckSeconds", Kind::Number),
    ("connectRetry", Kind::Number),
    ("connectTimeout", Kind::Number),
    ("defaultDatabase", Kind::Number),
    ("keepAlive", Kind::Number),
    ("name", Kind::Text),
    ("password", Kind::Text),
    ("ssl", Kind::Truth),
    ("sslHost", Kind::Text),
    ("sslProtocols", Kind::Text),
    ("syncTimeout", Kind::Number),
    ("tiebreaker", Kind::Text),
    ("user", Kind::Text),
];

/// What replaces a connection string: the provider looks at none of them where there is one.
const INSTEAD_OF_A_STRING: &[&str] = &[
    "host",
    "port",
    "accessKey",
    "ssl",
    "connectionTimeoutInMilliseconds",
    "operationTimeoutInMilliseconds",
];

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Truth,
}

/// Says what is wrong with a setting of which these are known.
fn check(known: &[(&str, Kind)], name: &str, value: &str) -> Result<(), String> {
    let (_, kind) = known
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| format!("{name} is not known"))?;
    let fits = match kind {
        Kind::Text => !value.is_empty(),
        Kind::Number => value.parse::<u32>().is_ok(),
        Kind::Truth => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{name} cannot be {value:?}"))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-examples/aspnet")
}

fn web_config() -> String {
    std::fs::read_to_string(folder().join("web.config")).unwrap()
}

fn settings_file(node: usize) -> PathBuf {
    folder().join(format!("plenary-{node}.toml"))
}

/// The settings of the three nodes.
fn nodes() -> Vec<toml::Table> {
    let read = |node| toml::from_str(&std::fs::read_to_string(settings_file(node)).unwrap()).unwrap();
    (1..=3).map(read).collect()
}

fn said<'a>(node: &'a toml::Table, name: &str) -> &'a str {
    node[name].as_str().unwrap()
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap()
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').unwrap().0
}

fn element<'a>(document: &'a Document<'_>, path: &str) -> Node<'a, 'a> {
    path.split('/').fold(document.root(), |parent, name| {
        parent
            .children()
            .find(|child| child.has_tag_name(name))
            .unwrap_or_else(|| panic!("no {name} of {path}"))
    })
}

fn attribute<'a>(element: Node<'a, 'a>, name: &str) -> &'a str {
    element
        .attribute(name)
        .unwrap_or_else(|| panic!("no {name} in {element:?}"))
}

/// The providers by name.
fn providers<'a>(document: &'a Document<'_>) -> BTreeMap<&'a str, Node<'a, 'a>> {
    let all = element(document, "configuration/system.web/sessionState/providers");
    let added = all.children().filter(|child| child.has_tag_name("add"));
    added
        .map(|provider| (attribute(provider, "name"), provider))
        .collect()
}

/// The value of what is added under a name: the provider looks such names up.
fn added<'a>(document: &'a Document<'_>, section: &str, key: &str, name: &str, value: &str) -> &'a str {
    let section = element(document, &format!("configuration/{section}"));
    let found = section
        .children()
        .find(|child| child.attribute(key) == Some(name));
    attribute(found.unwrap_or_else(|| panic!("no {name}")), value)
}

/// A connection string: its hosts, and its options by name.
fn connection_string(text: &str) -> (Vec<&str>, BTreeMap<&str, &str>) {
    let (options, hosts): (Vec<&str>, Vec<&str>) = text.split(',').partition(|part| part.contains('='));
    let options = options.into_iter().map(|option| option.split_once('=').unwrap());
    (hosts, options.collect())
}

#[test]
fn web_config_says_what_the_provider_understands() {
    let text = web_config();
    let document = Document::parse(&text).expect("well-formed");
    let session_state = element(&document, "configuration/system.web/sessionState");
    assert_eq!(attribute(session_state, "mode"), "Custom");
    assert!(attribute(session_state, "timeout").parse::<u32>().is_ok());
    let providers = providers(&document);
    assert!(providers.contains_key(attribute(session_state, "customProvider")));
    for (name, provider) in &providers {
        assert_eq!(
            attribute(*provider, "type"),
            "Microsoft.Web.Redis.RedisSessionStateProvider"
        );
        for set in provider.attributes() {
            check(ATTRIBUTES, set.name(), set.value()).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        if provider.has_attribute("connectionString") {
            let ignored = INSTEAD_OF_A_STRING
                .iter()
                .find(|name| provider.has_attribute(**name));
            assert_eq!(
                ignored, None,
                "{name}: not looked at where there is a connection string"
            );
        }
        let database: usize = attribute(*provider, "databaseId").parse().unwrap();
        assert!(database < DATABASES);
    }
    let same = [
        "databaseId",
        "applicationName",
        "throwOnError",
        "retryTimeoutInMilliseconds",
    ];
    for name in same {
        let values: Vec<_> = providers
            .values()
            .map(|provider| attribute(*provider, name))
            .collect();
        assert!(
            values.windows(2).all(|pair| pair[0] == pair[1]),
            "{name}: {values:?}"
        );
    }
    let string = added(
        &document,
        "connectionStrings",
        "name",
        "PlenaryNodes",
        "connectionString",
    );
    for (name, value) in connection_string(string).1 {
        check(OPTIONS, name, value).unwrap();
    }
}

#[test]
fn what_the_provider_does_not_understand_is_found() {
    for (name, value, why) in [
        ("accesskey", "x", "accesskey is not known"),
        ("redisSerializerType", "x", "redisSerializerType is not known"),
        ("port", "6380s", "port cannot be \"6380s\""),
        ("ssl", "yes", "ssl cannot be \"yes\""),
        ("host", "", "host cannot be \"\""),
    ] {
        assert_eq!(check(ATTRIBUTES, name, value).unwrap_err(), why);
    }
}

#[test]
fn web_config_and_the_settings_of_the_nodes_fit_each_other() {
    let (text, nodes) = (web_config(), nodes());
    let document = Document::parse(&text).unwrap();
    let providers = providers(&document);
    let write_deadline = Timing::default().write_deadline;
    let key = added(&document, "appSettings", "key", "PlenaryAccessKey", "value");

    let three = providers["ThreeNodes"];
    let string = added(
        &document,
        "connectionStrings",
        "name",
        attribute(three, "connectionString"),
        "connectionString",
    );
    let (hosts, options) = connection_string(string);
    let served: Vec<String> = nodes
        .iter()
        .map(|node| {
            format!(
                "{}:{}",
                host(said(node, "advertise")),
                port(said(node, "tls_listen"))
            )
        })
        .collect();
    assert_eq!(hosts, served);
    assert_eq!(options["ssl"], "True");
    assert_eq!(options["password"], key);
    let local = providers["LocalNode"];
    assert_eq!(attribute(local, "ssl"), "false");
    assert_eq!(attribute(local, "accessKey"), "PlenaryAccessKey");
    for (provider, inner) in [
        (three, options["syncTimeout"]),
        (local, attribute(local, "operationTimeoutInMilliseconds")),
    ] {
        let inner = Duration::from_millis(inner.parse().unwrap());
        let outer = attribute(provider, "retryTimeoutInMilliseconds");
        assert!(
            inner > write_deadline,
            "the client waits longer than a node holds a write"
        );
        assert!(
            Duration::from_millis(outer.parse().unwrap()) > inner,
            "or it is never tried again"
        );
    }

    let peers: Vec<&str> = nodes.iter().map(|node| said(node, "advertise")).collect();
    for node in &nodes {
        assert_eq!(
            said(node, "resp"),
            format!("{}:{}", attribute(local, "host"), attribute(local, "port"))
        );
        assert_eq!(port(said(node, "advertise")), port(said(node, "listen")));
        let join = node["join"].as_array().unwrap().iter();
        let join: Vec<&str> = join.filter_map(toml::Value::as_str).collect();
        assert_eq!(join, peers);
        assert_eq!(node["expect"].as_integer(), Some(3));
        assert!(node.contains_key("access_key_file") && node.contains_key("secret_file"));
    }
}

/// The files are those of the example; places on this machine stand in for its hosts, folders and certificates.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_start_from_the_files_and_serve_what_web_config_asks_for() {
    let text = web_config();
    let document = Document::parse(&text).unwrap();
    let key = added(&document, "appSettings", "key", "PlenaryAccessKey", "value");
    let provider = providers(&document)["ThreeNodes"];
    let (database, name) = (
        attribute(provider, "databaseId"),
        attribute(provider, "applicationName"),
    );

    let folder = tempfile::tempdir().unwrap();
    let authority = common::tls::authority();
    let (cert, cert_key) = common::tls::signed(&authority, folder.path(), "node");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (secret, key_file) = (
        file("secret", "sixteen bytes and some more"),
        file("access-key", key),
    );
    let peers = common::addresses(3);
    let join = peers.join(",");
    let tls: Vec<String> = peers
        .iter()
        .map(|_| format!("127.0.0.1:{}", free_port()))
        .collect();
    let mut nodes: Vec<Process> = (0..3)
        .map(|node| {
            let config = settings_file(node + 1);
            let http = format!("127.0.0.1:{}", free_port());
            let args = [
                ["--config", config.to_str().unwrap()],
                ["--advertise", &peers[node]],
                ["--join", &join],
                ["--secret-file", &secret],
                ["--access-key-file", &key_file],
                ["--tls-listen", &tls[node]],
                ["--tls-cert-file", cert.to_str().unwrap()],
                ["--tls-key-file", cert_key.to_str().unwrap()],
                ["--http", &http],
            ];
            Process::new(folder.path(), &format!("n{node}"), &peers[node], &args.concat())
        })
        .collect();
    for node in &mut nodes {
        node.start();
    }
    for node in &nodes {
        node.says("ready: ");
    }

    // As the provider sets a session, with TLS on the second node.
    let (data, timeout) = (
        format!("{{{name}_1}}_SessionStateItemCollection"),
        format!("{{{name}_1}}_SessionTimeout"),
    );
    let mut stream = common::tls::connect(&tls[1], &authority, None)
        .await
        .expect("agreed on TLS");
    let mut input = BytesMut::new();
    let mut ask = async |argv: &[&str]| -> Reply {
        stream.write_all(&request(argv)).await.unwrap();
        stream.flush().await.unwrap();
        loop {
            if let Some(reply) = decode(&mut input).unwrap() {
                return reply;
            }
            let read = tokio::time::timeout(common::PATIENCE, stream.read_buf(&mut input)).await;
            assert!(read.expect("an answer in time").unwrap() > 0, "closed");
        }
    };
    assert!(text_of(&ask(&["GET", &data]).await).starts_with("NOAUTH"));
    assert!(text_of(&ask(&["AUTH", "another key"]).await).starts_with("WRONGPASS"));
    assert_eq!(ask(&["AUTH", key]).await, Reply::OK);
    assert_eq!(ask(&["SELECT", database]).await, Reply::OK);
    let set = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('EXPIRE', KEYS[1], ARGV[2]) \
               redis.call('SET', KEYS[2], ARGV[2]) redis.call('EXPIRE', KEYS[2], ARGV[2]) return 1";
    let answer = ask(&["EVAL", set, "2", &data, &timeout, "bytes of items", "1200"]).await;
    assert_eq!(answer, Reply::Integer(1));
    let token = text_of(&ask(&["PLENARY", "TOKEN"]).await);

    // As LocalNode reads it, on the other two.
    for node in [&nodes[0], &nodes[2]] {
        assert!(Client::connect(&node.redis, Some(&Secret::new("another key"))).is_err());
        let mut local = Client::connect(&node.redis, Some(&Secret::new(key))).unwrap();
        local.call(&["PLENARY", "WAITFOR", &token, "5000"]).unwrap();
        local.call(&["SELECT", database]).unwrap();
        assert_eq!(
            local.call(&["GET", &data]).unwrap(),
            Reply::bulk("bytes of items")
        );
        let left: u64 = client::text(&local.call(&["TTL", &data]).unwrap())
            .parse()
            .unwrap();
        assert!((1_000..=1_200).contains(&left), "{left}");
    }
    for node in &mut nodes {
        assert!(node.stop().success(), "{}", node.last_words());
    }
}

fn text_of(reply: &Reply) -> String {
    match reply {
        Reply::Error(error) => error.to_string(),
        other => client::text(other),
    }
}
