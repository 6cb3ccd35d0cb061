//! How a quorum comes into being, and how nodes come into it.
//!
//! There is no format step, so the first start must tell a new cluster from a node that lost its disk. The rule: the
//! voter with the lowest id writes the first membership, once, if **every** configured voter has answered that its
//! directory is pristine: no entry, no vote, ever. One voter that remembers something, or cannot be asked, and nothing
//! is formed. Directory ids are part of that membership, and a node votes only when asked under its present directory id;
//! so a voter that is wiped between answering and voting does not vote.
//!
//! If the founder dies after writing the membership and before anybody voted, it finds its own log on restart and stands
//! for election. If it is wiped then, all directories are pristine again.
//!
//! Everybody else waits to be found: voters of a formed quorum are written to by its leader, all others ask it to be
//! taken in, and go on asking until their own log records them as they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;
use vltava_host::random;
use vltava_metadata::Endpoint;
use vltava_peer::raft::{DescribeResponse, JoinRequest, RaftClient};
use vltava_types::{DirectoryId, Uuid};

use crate::identity::{Identity, directory_from_wire};
use crate::log_store::LogStore;
use crate::types::{Member, Raft};

/// How often other voters are asked.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(200);

/// How long they may take to answer.
const DESCRIBE_DEADLINE: Duration = Duration::from_millis(500);

/// Changing the membership takes several entries, and a slow disk.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);

/// How often a member makes sure that it is one.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Forms the quorum or joins it, then keeps this node recorded as it is. Never ends.
pub(crate) async fn run(
    identity: Arc<Identity>,
    raft: Raft,
    log_store: LogStore,
    configured_cluster_id: Option<String>,
) {
    let others = clients(&identity);
    let mut attempts = 0u32;
    loop {
        if is_recorded(&identity) {
            sleep(RECHECK_INTERVAL).await;
            continue;
        }
        let descriptions = describe(&others).await;
        let own = (identity.node_id, identity.directory_id, log_store.is_pristine());
        match decide(own, &identity.voters, &descriptions) {
            Step::Form(directories) => {
                form(&identity, &raft, &log_store, configured_cluster_id.as_deref(), directories).await
            }
            Step::Join(leader) => join(&identity, leader).await,
            Step::Wait(reason) => {
                if attempts.is_multiple_of(50) {
                    tracing::info!(reason, "waiting for the metadata quorum");
                }
            }
        }
        attempts += 1;
        sleep(ATTEMPT_INTERVAL).await;
    }
}

/// What a node that is not recorded as a member should do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Write the first membership, with these directories.
    Form(BTreeMap<u64, DirectoryId>),
    /// Ask this leader.
    Join(Endpoint),
    Wait(&'static str),
}

/// `own` is this node's id, directory, and whether that is pristine; `descriptions` are the answers of others.
fn decide(own: (u64, DirectoryId, bool), voters: &BTreeMap<u64, Endpoint>, descriptions: &[DescribeResponse]) -> Step {
    let (own_id, own_directory, is_pristine) = own;
    let leader = descriptions.iter().filter(|other| other.leader_id.is_some()).max_by_key(|other| other.term);
    if let Some(leader) = leader
        && leader.leader_id != Some(own_id)
        && let Ok(port) = u16::try_from(leader.leader_port)
    {
        let known = leader.leader_id.and_then(|leader_id| voters.get(&leader_id)).cloned();
        let described = Endpoint { host: leader.leader_host.clone(), port, security_protocol: "PLAINTEXT".to_owned() };
        return Step::Join(known.unwrap_or(described));
    }
    if voters.keys().next() != Some(&own_id) {
        return Step::Wait("another voter forms the quorum, or is being elected");
    }
    if !is_pristine {
        return Step::Wait("this node has a log and waits for a leader");
    }
    let mut directories = BTreeMap::from([(own_id, own_directory)]);
    for other in descriptions {
        if !other.pristine {
            return Step::Wait(
                "another voter has a log, so this node lost its own: it waits for a leader to take it in",
            );
        }
        if let (true, Some(directory)) = (voters.contains_key(&other.node_id), directory_from_wire(&other.directory_id))
        {
            directories.insert(other.node_id, directory);
        }
    }
    if directories.len() < voters.len() {
        return Step::Wait("a new quorum is formed when every voter can be reached");
    }
    Step::Form(directories)
}

async fn form(
    identity: &Identity,
    raft: &Raft,
    log_store: &LogStore,
    configured_cluster_id: Option<&str>,
    directories: BTreeMap<u64, DirectoryId>,
) {
    let cluster_id =
        configured_cluster_id.map_or_else(|| Uuid::from_random(random::bytes()).to_string(), ToOwned::to_owned);
    if let Err(error) = log_store.save_cluster_id(&cluster_id).await {
        tracing::error!(%error, "the metadata quorum cannot be formed");
        return;
    }
    identity.set_cluster_id(&cluster_id);
    let members: BTreeMap<u64, Member> = directories
        .into_iter()
        .map(|(node_id, directory_id)| {
            let endpoint = if node_id == identity.node_id { Some(&identity.endpoint) } else { None };
            let endpoint = identity.voters.get(&node_id).or(endpoint).expect("a voter has an endpoint").clone();
            (node_id, Member { directory_id, endpoint })
        })
        .collect();
    tracing::info!(cluster_id, voters = ?members.keys(), "forming a new metadata quorum");
    if let Err(error) = raft.initialize(members).await {
        tracing::error!(%error, "the metadata quorum cannot be formed");
    }
}

async fn join(identity: &Identity, leader: Endpoint) {
    // Addressed to nobody in particular: this node may not know the leader's directory.
    let request = JoinRequest {
        envelope: Some(identity.envelope(0, DirectoryId::ZERO)),
        host: identity.endpoint.host.clone(),
        port: u32::from(identity.endpoint.port),
        security_protocol: identity.endpoint.security_protocol.clone(),
    };
    match RaftClient::new(&leader).join(request, JOIN_DEADLINE).await {
        Ok(response) if response.accepted => {}
        Ok(response) => tracing::info!(reason = response.message, "the leader does not take this node in"),
        Err(error) => tracing::info!(%error, "the leader does not take this node in"),
    }
}

/// Whether this node's own log records it as it is.
fn is_recorded(identity: &Identity) -> bool {
    let own = identity.member();
    identity.membership().and_then(|membership| membership.get_node(&identity.node_id).cloned()).is_some_and(|member| {
        let is_addressed_by_config = identity.voters.contains_key(&identity.node_id);
        member.directory_id == own.directory_id && (is_addressed_by_config || member.endpoint == own.endpoint)
    })
}

fn clients(identity: &Identity) -> Vec<RaftClient> {
    let voters = identity.voters.iter().filter(|(voter, _)| **voter != identity.node_id).map(|(_, endpoint)| endpoint);
    voters.chain(&identity.bootstrap_servers).map(RaftClient::new).collect()
}

async fn describe(others: &[RaftClient]) -> Vec<DescribeResponse> {
    let answers = join_all(others.iter().map(|other| other.describe(DESCRIBE_DEADLINE))).await;
    answers.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn voters(ids: &[u64]) -> BTreeMap<u64, Endpoint> {
        let endpoint =
            |id: u64| Endpoint { host: format!("node{id}"), port: 9093, security_protocol: "PLAINTEXT".to_owned() };
        ids.iter().map(|id| (*id, endpoint(*id))).collect()
    }

    fn directory(id: u64) -> DirectoryId {
        DirectoryId(Uuid([u8::try_from(id).expect("a small id"); 16]))
    }

    fn answer(id: u64, pristine: bool, leader_id: Option<u64>) -> DescribeResponse {
        DescribeResponse {
            node_id: id,
            directory_id: Bytes::copy_from_slice(&directory(id).0.0),
            pristine,
            leader_id,
            leader_host: "leader".to_owned(),
            leader_port: 1,
            ..DescribeResponse::default()
        }
    }

    fn check(own: (u64, bool), voter_ids: &[u64], answers: &[DescribeResponse], expected: &expect_test::Expect) {
        let step = decide((own.0, directory(own.0), own.1), &voters(voter_ids), answers);
        let text = match step {
            Step::Form(directories) => format!("form with {:?}", directories.keys()),
            Step::Join(endpoint) => format!("join {}", endpoint.host),
            Step::Wait(reason) => format!("wait: {reason}"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn the_lowest_voter_forms_the_quorum_when_all_are_pristine() {
        check((1, true), &[1], &[], &expect_test::expect!["form with [1]"]);
        let fresh = [answer(2, true, None), answer(3, true, None)];
        check((1, true), &[1, 2, 3], &fresh, &expect_test::expect!["form with [1, 2, 3]"]);
    }

    #[test]
    fn nothing_is_formed_while_a_voter_is_silent_or_remembers() {
        let silent = [answer(2, true, None)];
        check(
            (1, true),
            &[1, 2, 3],
            &silent,
            &expect_test::expect!["wait: a new quorum is formed when every voter can be reached"],
        );
        let remembers = [answer(2, true, None), answer(3, false, None)];
        check(
            (1, true),
            &[1, 2, 3],
            &remembers,
            &expect_test::expect![
                "wait: another voter has a log, so this node lost its own: it waits for a leader to take it in"
            ],
        );
        let fresh = [answer(1, true, None), answer(3, true, None)];
        check(
            (2, true),
            &[1, 2, 3],
            &fresh,
            &expect_test::expect!["wait: another voter forms the quorum, or is being elected"],
        );
        let after_a_crash = [answer(2, true, None), answer(3, true, None)];
        check(
            (1, false),
            &[1, 2, 3],
            &after_a_crash,
            &expect_test::expect!["wait: this node has a log and waits for a leader"],
        );
    }

    #[test]
    fn who_finds_a_leader_joins_it() {
        let formed = [answer(2, false, Some(2)), answer(3, false, Some(2))];
        check((1, true), &[1, 2, 3], &formed, &expect_test::expect!["join node2"]);
        check((9, true), &[2, 3], &[answer(2, false, Some(7))], &expect_test::expect!["join leader"]);
    }
}
