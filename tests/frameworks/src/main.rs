//! One instance of the site: a node of Plenary and the framework in one process, as an application has it.
//!
//! `plenary-frameworks FRAMEWORK DATA LISTEN PEER,PEER…` prints `ready LONG SHORT REDIS`: where the site listens, with sessions that live for an
//! hour and with sessions that live for [`SHORT`], and where the node listens for Redis clients. It ends when its standard input does.

use plenary::{Plenary, RespConfig};
use plenary_frameworks::{Framework, SHORT};
use std::error::Error;
use std::io::Read;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);
/// How long the others may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, framework, data, listen, peers] = &arguments[..] else {
        return Err("plenary-frameworks FRAMEWORK DATA LISTEN PEER,PEER…".into());
    };
    let framework = Framework::from_name(framework).ok_or("no such framework")?;
    let plenary = Plenary::builder()
        .data(data)
        .listen(listen)
        .join(peers.split(','))
        .resp(RespConfig::new("127.0.0.1:0"))
        .start()
        .await?;
    plenary.node().ready(PATIENCE).await?;
    let long = framework.serve(plenary.sessions(), LONG).await;
    let short = framework.serve(plenary.sessions(), SHORT).await;
    let redis = plenary.resp_addr().ok_or("no Redis endpoint")?;
    println!("ready {long} {short} {redis}");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    plenary.stop().await?;
    // What the frameworks still do is of no interest any more.
    std::process::exit(0);
}
