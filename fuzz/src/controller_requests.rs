//! Requests to the active controller, as other nodes send them: each is decided, its records can be replayed, and the
//! image they make survives being a snapshot.
//!
//! Input: for each request, how far the clock goes on (in tenths of a second), and its bytes with their length.

use std::collections::BTreeMap;

use vltava_metadata::codec::{decode_records, decode_request, encode_records};
use vltava_metadata::controller::{
    Controller, ControllerConfig, ControllerRequest, CreateTopic, CreateTopics, Heartbeat, RegisterBroker,
};
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_types::{BrokerEpoch, BrokerId, DirectoryId, IncarnationId, MetadataOffset, TopicId, Uuid};

use crate::input::Input;

const MAX_REQUESTS: usize = 40;

pub fn run(data: &[u8]) {
    let mut controller = Controller::new(ControllerConfig { max_partitions_per_request: 100, ..Default::default() });
    let mut image = small_cluster(&mut controller);
    let mut now_ms = 0;
    let mut input = Input::new(data);
    for _ in 0..MAX_REQUESTS {
        if input.is_empty() {
            break;
        }
        now_ms += 100 * i64::from(input.byte());
        if let Ok(request) = decode_request(input.chunk()) {
            let decision = controller.handle(&image, &request, now_ms);
            image.replay_all(&decision.records);
        }
        let records = controller.tick(&image, now_ms);
        image.replay_all(&records);
        image.offset.0 += 1;
    }
    let snapshot = decode_records(&encode_records(&image.to_records())).expect("what we encoded can be decoded");
    let mut restored = ClusterImage { offset: image.offset, term: image.term, ..ClusterImage::default() };
    restored.replay_all(&snapshot);
    assert_eq!(restored, image, "a snapshot gives the image that it was made of");
}

/// Three brokers and a topic.
fn small_cluster(controller: &mut Controller) -> ClusterImage {
    let mut image = ClusterImage::default();
    image.replay_all(&controller.form_cluster(&image, "cluster"));
    let endpoint = Endpoint { host: "localhost".to_owned(), port: 1, security_protocol: "PLAINTEXT".to_owned() };
    for id in 0..3 {
        let register = ControllerRequest::RegisterBroker(RegisterBroker {
            broker_id: BrokerId(id),
            cluster_id: String::new(),
            incarnation_id: IncarnationId::ZERO,
            listeners: BTreeMap::from([("PLAINTEXT".to_owned(), endpoint.clone())]),
            peer: endpoint.clone(),
            rack: (id > 0).then(|| format!("rack-{id}")),
            log_dirs: vec![DirectoryId::ZERO],
            is_broker: true,
            previous_broker_epoch: BrokerEpoch::NONE,
        });
        image.replay_all(&controller.handle(&image, &register, 0).records);
        let heartbeat = ControllerRequest::Heartbeat(Heartbeat {
            broker_id: BrokerId(id),
            broker_epoch: image.last_broker_epoch,
            applied: MetadataOffset(1),
            want_fence: false,
            want_shutdown: false,
            offline_log_dirs: vec![],
            offline_partitions: vec![],
        });
        image.replay_all(&controller.handle(&image, &heartbeat, 0).records);
    }
    let topic = CreateTopic {
        name: "a".to_owned(),
        topic_id: TopicId(Uuid([1; 16])),
        partition_count: 2,
        replication_factor: 3,
        assignments: BTreeMap::new(),
        configs: BTreeMap::new(),
        clamp_replication_factor: false,
    };
    let create = ControllerRequest::CreateTopics(CreateTopics { topics: vec![topic], validate_only: false });
    image.replay_all(&controller.handle(&image, &create, 0).records);
    assert_eq!(image.partitions().count(), 2, "the cluster is up");
    image
}
