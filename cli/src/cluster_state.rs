//! Asking the nodes of a cluster how they are.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use varve_client::{Client, ClientError};

use crate::health::{Answer, Summary};

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
        if let Some(client) = &client
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
