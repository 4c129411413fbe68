//! Asking the nodes of a cluster how they are.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use varve_client::{Client, ClientError};
use varve_protocol::client::NodeVitals;

use crate::health::{Answer, Health, NodeHealth, Summary};

/// The pause between two rounds of questions.
const POLL_PAUSE: Duration = Duration::from_millis(250);

/// Asks every node of the cluster once.
pub(crate) async fn summary(client: &Client) -> Result<Summary, ClientError> {
    let map = client.admin().map().await?;
    let answers: Vec<Answer> = client
        .admin()
        .statuses()
        .await?
        .into_iter()
        .map(|(entry, answer)| (entry, answer.map_err(why)))
        .collect();
    Ok(Summary::new(&map, &answers))
}

/// Whether every node says in short what it said at length before, and all was available: then there is nothing to ask of
/// thousands of groups.
async fn is_unchanged(client: &Client, before: Option<&Summary>) -> bool {
    let Some(before) = before.filter(|before| before.health != Health::Unavailable) else { return false };
    let vitals = client.admin().vitals().await;
    let has_map = |vitals: &NodeVitals| vitals.map_op <= before.map_op;
    let is_as_before = |(entry, answer), before: &NodeHealth| {
        let answer: Result<NodeVitals, String> = Result::map_err(answer, why);
        answer.as_ref().map_or(true, has_map) && NodeHealth::new(&entry, &answer).is_as(before)
    };
    vitals.len() == before.nodes.len()
        && vitals.into_iter().zip(&before.nodes).all(|(now, before)| is_as_before(now, before))
}

/// Why one node does not answer.
fn why(error: ClientError) -> String {
    if let ClientError::Unreachable { reason } = error { reason } else { error.to_string() }
}

/// Asks again and again until nobody wants to know any more. What cannot be asked yet is asked later.
pub(crate) async fn poll_summary(servers: String, report: watch::Sender<Option<Summary>>) {
    let mut client = None;
    while !report.is_closed() {
        if client.is_none() {
            client = Client::connect(&servers).await.ok();
        }
        let before = report.borrow().clone();
        if let Some(client) = &client
            && !is_unchanged(client, before.as_ref()).await
            && let Ok(summary) = summary(client).await
        {
            report.send_if_modified(|current| {
                let changed = current.as_ref() != Some(&summary);
                *current = Some(summary);
                changed
            });
        }
        sleep(POLL_PAUSE).await;
    }
}
