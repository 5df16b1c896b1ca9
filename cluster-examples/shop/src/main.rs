//! A shop in three copies, each with a Plenary node in its process, behind a proxy without sticky sessions. Its copies can be rolled, one after the other,
//! and no visitor notices.
//!
//! `cargo run --release --manifest-path cluster-examples/shop/Cargo.toml` (`-- --help` for the rest). Here is the parent, which starts the copies, and
//! what a copy does from start to stop; the copies are this same program.

mod actix;
mod axum;
#[path = "../../shared/browser.rs"]
mod browser;
#[path = "../../shared/children.rs"]
mod children;
mod pages;
#[path = "../../shared/proxy.rs"]
mod proxy;
mod rounds;
mod shop;
mod visitors;

use children::{Children, LOOK, PATIENCE, Result};
use plenary::Plenary;
use proxy::{Proxy, READY_LOOK};
use shop::Shop;
use std::error::Error;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const COPIES: usize = 3;

/// How long a copy that is to stop goes on serving after it has said that it is not ready: until the proxy has asked, many times over.
const LEAVE: Duration = READY_LOOK.saturating_mul(10);

const HELP: &str = "\
Usage: shop [--web axum|actix] [--check] [--rounds N] [--visitors N] [--strict] [--base-port P] [--data DIR]

  --web NAME     which framework serves the pages (axum)
  --check        visitors buy while the copies are rolled, then one copy is killed; the exit status tells
  --rounds N     how often each copy is rolled (5)
  --visitors N   how many there are, each with two browsers (8)
  --strict       a 99th percentile over 250 ms is a fault, too
  --base-port P  proxy on P, copies on P+1.., peers on P+21.. (free ports)
  --data DIR     keep the state there (a temporary folder)

Without --check it goes on until Ctrl-C; Enter rolls the copies.
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Web {
    Axum,
    Actix,
}

impl Web {
    fn named(name: &str) -> Result<Self> {
        match name {
            "axum" => Ok(Self::Axum),
            "actix" => Ok(Self::Actix),
            other => Err(format!("--web is axum or actix, not {other}").into()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum",
            Self::Actix => "actix",
        }
    }
}

#[derive(Debug)]
struct Options {
    web: Web,
    check: bool,
    rounds: usize,
    visitors: usize,
    strict: bool,
    base_port: Option<u16>,
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done = match words.first().map(String::as_str) {
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("copy") => runtime.block_on(copy(&words[1..])).map(|()| true),
        _ => runtime.block_on(parent(&words)),
    };
    // A reader of standard input may still wait: it must not keep the process.
    runtime.shutdown_background();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("shop: {error}");
    ExitCode::FAILURE
}

/// `copy WEB NAME DATA HTTP PEER JOIN,JOIN,JOIN`, as the parent starts it: serves until standard input ends, which it also does when the parent is gone.
async fn copy(words: &[String]) -> Result<()> {
    let [web, name, data, http, peer, join] = words else {
        return Err("copies are started by the parent".into());
    };
    let join: Vec<&str> = join.split(',').collect();
    let mut builder = Plenary::builder()
        .data(data)
        .listen(peer)
        .expect(join.len())
        .join(join);
    if let Ok(secret) = std::env::var("PLENARY_SECRET") {
        builder = builder.secret(secret);
    }
    let plenary = builder.start().await?;
    let shop = Shop::new(name.clone(), plenary.clone());
    let listener = TcpListener::bind(http)?;
    let stop = {
        let shop = shop.clone();
        async move {
            // How it ends does not matter, nor what was written.
            let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
            shop.leave();
            tokio::time::sleep(LEAVE).await;
        }
    };
    let served = async || -> Result<()> {
        match Web::named(web)? {
            Web::Axum => axum::serve(shop, listener, stop).await?,
            Web::Actix => actix::serve(shop, listener, stop).await?,
        }
        Ok(())
    };
    tokio::select! {
        served = served() => served?,
        fault = plenary.node().stopped() => return Err(format!("the node stopped: {fault:?}").into()),
    }
    // The last request is answered: now the node may hand over leadership and go.
    Ok(plenary.stop().await?)
}

fn options(words: &[String]) -> Result<Options> {
    let mut options = Options {
        web: Web::Axum,
        check: false,
        rounds: 5,
        visitors: 8,
        strict: false,
        base_port: None,
        data: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--web" => options.web = Web::named(value()?)?,
            "--check" => options.check = true,
            "--rounds" => options.rounds = value()?.parse()?,
            "--visitors" => options.visitors = value()?.parse()?,
            "--strict" => options.strict = true,
            "--base-port" => options.base_port = Some(value()?.parse()?),
            "--data" => options.data = Some(value()?.into()),
            other => return Err(format!("what is {other}?\n{HELP}").into()),
        }
    }
    if options.visitors < 2 {
        return Err(
            "--visitors is 2 at least: one signs out everywhere, and the other must not notice".into(),
        );
    }
    Ok(options)
}

async fn parent(words: &[String]) -> Result<bool> {
    let options = options(words)?;
    let temporary = tempfile::tempdir()?;
    let data = options
        .data
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let mut held = children::listeners(options.base_port, &[0, 1, 2, 3, 21, 22, 23])?;
    let listener = held.remove(0);
    let addresses = held
        .iter()
        .map(|held| Ok(held.local_addr()?.to_string()))
        .collect::<Result<Vec<_>>>()?;
    drop(held);
    let (http, peers) = addresses.split_at(COPIES);
    let mut arguments = Vec::new();
    for copy in 0..COPIES {
        let name = format!("copy {}", copy + 1);
        let data = data.join(&name);
        std::fs::create_dir_all(&data)?;
        let data = data.to_str().ok_or("--data must be UTF-8")?;
        let join = peers.join(",");
        let words = [options.web.name(), &name, data, &http[copy], &peers[copy], &join];
        arguments.push(words.map(str::to_owned).to_vec());
    }
    let mut cluster = Cluster {
        http: http.to_vec(),
        children: Children::start(arguments)?,
    };
    let address = listener.local_addr()?.to_string();
    listener.set_nonblocking(true)?;
    let proxy = Proxy::new(cluster.http.clone(), |_| false);
    tokio::spawn(proxy.clone().watch());
    tokio::spawn(proxy.clone().serve(tokio::net::TcpListener::from_std(listener)?));
    tokio::select! {
        done = show(&options, &mut cluster, &proxy, &address) => {
            cluster.children.stop().await;
            done
        }
        _ = tokio::signal::ctrl_c() => {
            cluster.children.stop().await;
            Ok(true)
        }
    }
}

async fn show(options: &Options, cluster: &mut Cluster, proxy: &Proxy, address: &str) -> Result<bool> {
    cluster.ready().await?;
    let web = options.web.name();
    println!("three copies of the shop in {web} are ready: http://{address}");
    if options.check {
        return rounds::check(options, cluster, proxy, address).await;
    }
    println!("Enter rolls them, Ctrl-C stops all");
    loop {
        let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await?;
        if line? == 0 {
            // Nobody is there to type: only Ctrl-C is left.
            return std::future::pending().await;
        }
        for copy in 0..COPIES {
            let stopped = cluster.roll(copy).await?;
            println!(
                "copy {} was away for {} ms",
                copy + 1,
                stopped.elapsed().as_millis()
            );
        }
    }
}

/// The copies that run.
struct Cluster {
    http: Vec<String>,
    children: Children,
}

impl Cluster {
    /// Lets one copy stop by itself and starts it again; when it had stopped.
    async fn roll(&mut self, copy: usize) -> Result<Instant> {
        let ended = self.children.stop_one(copy).await?;
        if !ended.success() {
            return Err(format!("copy {} did not stop well: {ended}", copy + 1).into());
        }
        let stopped = Instant::now();
        self.children.restart(copy)?;
        self.ready().await?;
        Ok(stopped)
    }

    /// Waits until every copy serves; which one leads.
    async fn ready(&mut self) -> Result<usize> {
        let started = Instant::now();
        loop {
            self.children.all_run()?;
            let mut leader = None;
            let mut ready = 0;
            for (index, address) in self.http.iter().enumerate() {
                let Some((200, role)) = children::get(address, "/ready").await else {
                    continue;
                };
                ready += 1;
                leader = if role == b"leader" { Some(index) } else { leader };
            }
            match leader {
                Some(leader) if ready == COPIES => return Ok(leader),
                _ if started.elapsed() > PATIENCE => {
                    return Err(format!("only {ready} copies are ready").into());
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
