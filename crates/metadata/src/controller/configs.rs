//! Dynamic configs of topics, brokers, groups and client metrics.

use std::collections::{BTreeMap, BTreeSet};

use vltava_types::{ErrorCode, TopicPartition};

use super::draft::{Draft, error};
use super::{AlterConfigs, ConfigOperation, Controller, ControllerError, Decision};
use crate::configs::{
    ConfigDef, ConfigType, DynamicScope, broker_config, group_config, split_list, topic_config,
    validate_topic_overrides,
};
use crate::image::{ClusterImage, ConfigImage};
use crate::record::{ConfigResource, MetadataRecord};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";

type Alterations = Vec<(ConfigResource, Result<(), ControllerError>)>;

impl Controller {
    pub(super) fn alter_configs(&self, image: &ClusterImage, request: &AlterConfigs) -> Decision<Alterations> {
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let mut answers = vec![];
        for (resource, operations) in &request.resources {
            let answer = alter_resource(&mut draft, resource, operations, request.replace_all);
            answers.push((resource.clone(), answer));
        }
        if request.validate_only {
            return Decision { records: vec![], response: answers };
        }
        draft.decide(answers)
    }
}

/// Checks the configs that a topic is created with.
pub(super) fn check_topic_configs(configs: &BTreeMap<String, String>) -> Result<(), ControllerError> {
    let configs = configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    validate_topic_overrides(configs).map_err(|invalid| error(ErrorCode::InvalidConfig, invalid.to_string()))
}

fn alter_resource(
    draft: &mut Draft<'_>,
    resource: &ConfigResource,
    operations: &[ConfigOperation],
    replace_all: bool,
) -> Result<(), ControllerError> {
    check_resource(draft, resource)?;
    let before = draft.image.configs.get(resource).map(|configs| ConfigImage::clone(configs)).unwrap_or_default();
    let after = altered(resource, &before, operations, replace_all)?;
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed: Vec<&String> = names.into_iter().filter(|name| before.get(*name) != after.get(*name)).collect();
    check_configs(resource, &after, &changed)?;
    for name in &changed {
        let (resource, value) = (resource.clone(), after.get(*name).cloned());
        draft.push(MetadataRecord::Config { resource, name: (*name).clone(), value });
    }
    if changed.iter().any(|name| *name == MIN_INSYNC_REPLICAS || *name == UNCLEAN_LEADER_ELECTION) {
        review_partitions(draft, resource);
    }
    Ok(())
}

fn check_resource(draft: &Draft<'_>, resource: &ConfigResource) -> Result<(), ControllerError> {
    match resource {
        ConfigResource::Topic(topic_id) if draft.image.topic(*topic_id).is_none() => {
            Err(error(ErrorCode::UnknownTopicOrPartition, "The topic does not exist."))
        }
        ConfigResource::Broker(broker_id) if draft.image.broker(*broker_id).is_none() => {
            Err(error(ErrorCode::BrokerIdNotRegistered, format!("No broker with id {broker_id} found.")))
        }
        ConfigResource::Group(name) if name.is_empty() => {
            Err(error(ErrorCode::InvalidRequest, "Default group resources are not allowed."))
        }
        ConfigResource::ClientMetrics(name) if name.is_empty() => {
            Err(error(ErrorCode::InvalidRequest, "Subscription name can't be empty"))
        }
        ConfigResource::Topic(_)
        | ConfigResource::Broker(_)
        | ConfigResource::ClusterDefault
        | ConfigResource::Group(_)
        | ConfigResource::ClientMetrics(_) => Ok(()),
    }
}

/// All configs of the resource after the operations.
fn altered(
    resource: &ConfigResource,
    before: &ConfigImage,
    operations: &[ConfigOperation],
    replace_all: bool,
) -> Result<ConfigImage, ControllerError> {
    let mut after = if replace_all { ConfigImage::new() } else { before.clone() };
    for operation in operations {
        match operation {
            ConfigOperation::Set { name, value } => {
                after.insert(name.clone(), value.clone());
            }
            ConfigOperation::Delete { name } => {
                after.remove(name);
            }
            ConfigOperation::Append { name, value } => {
                let mut list = current_list(resource, &after, name, "APPEND")?;
                for element in split_list(value) {
                    if !list.contains(&element) {
                        list.push(element);
                    }
                }
                after.insert(name.clone(), list.join(","));
            }
            ConfigOperation::Subtract { name, value } => {
                let mut list = current_list(resource, &after, name, "SUBTRACT")?;
                let removed = split_list(value);
                list.retain(|element| !removed.contains(element));
                after.insert(name.clone(), list.join(","));
            }
        }
    }
    // As in Kafka: AlterConfigs cannot take away what the cluster stands on without saying so.
    if replace_all && *resource == ConfigResource::ClusterDefault && !after.contains_key(MIN_INSYNC_REPLICAS) {
        after.extend(before.get_key_value(MIN_INSYNC_REPLICAS).map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(after)
}

fn current_list(
    resource: &ConfigResource,
    configs: &ConfigImage,
    name: &str,
    operation: &str,
) -> Result<Vec<String>, ControllerError> {
    let definition = definition(resource, name);
    if definition.is_none_or(|definition| definition.config_type != ConfigType::List) {
        let message = format!("Can't {operation} to key {name} because its type is not LIST.");
        return Err(error(ErrorCode::InvalidConfig, message));
    }
    let default = definition.and_then(|definition| definition.default).unwrap_or("");
    Ok(split_list(configs.get(name).map_or(default, String::as_str)))
}

/// Checks the configs that a resource would have. Those that stay as they are were valid before, and are not asked
/// again except where they could be in conflict with others.
fn check_configs(resource: &ConfigResource, after: &ConfigImage, changed: &[&String]) -> Result<(), ControllerError> {
    let refuse = |message: String| Err(error(ErrorCode::InvalidConfig, message));
    match resource {
        ConfigResource::Topic(_) => check_topic_configs(after),
        ConfigResource::Group(_) => {
            for name in changed.iter().filter(|name| after.contains_key(**name)) {
                if group_config(name).is_none() {
                    return refuse(format!("Unknown group config name: {name}"));
                }
            }
            check_values(resource, after, changed)
        }
        ConfigResource::Broker(_) | ConfigResource::ClusterDefault => {
            if changed.iter().any(|name| *name == MIN_INSYNC_REPLICAS) {
                // The ELR is right only if the controller and every leader go by the same number.
                if *resource != ConfigResource::ClusterDefault && after.contains_key(MIN_INSYNC_REPLICAS) {
                    return refuse(
                        "Broker-level min.insync.replicas cannot be altered while ELR is enabled.".to_owned(),
                    );
                }
                if *resource == ConfigResource::ClusterDefault && !after.contains_key(MIN_INSYNC_REPLICAS) {
                    return refuse(
                        "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.".to_owned(),
                    );
                }
            }
            check_scopes(resource, changed)?;
            check_values(resource, after, changed)
        }
        ConfigResource::ClientMetrics(_) => Ok(()),
    }
}

/// Only some configs of brokers can change while they run, and some only on single ones.
fn check_scopes(resource: &ConfigResource, changed: &[&String]) -> Result<(), ControllerError> {
    let scoped = |scope: DynamicScope| {
        let names = changed.iter().filter(|name| broker_config(name).is_some_and(|config| config.dynamic == scope));
        names.map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let read_only = scoped(DynamicScope::ReadOnly);
    if !read_only.is_empty() {
        let message = format!("Cannot update these configs dynamically: Set({read_only})");
        return Err(error(ErrorCode::InvalidRequest, message));
    }
    let per_broker = scoped(DynamicScope::PerBroker);
    if *resource == ConfigResource::ClusterDefault && !per_broker.is_empty() {
        let message =
            format!("Cannot update these configs at default cluster level, per-broker configs: Set({per_broker})");
        return Err(error(ErrorCode::InvalidRequest, message));
    }
    Ok(())
}

fn check_values(resource: &ConfigResource, after: &ConfigImage, changed: &[&String]) -> Result<(), ControllerError> {
    for name in changed {
        let (Some(value), Some(definition)) = (after.get(*name), definition(resource, name)) else { continue };
        definition.parse(value).map_err(|invalid| error(ErrorCode::InvalidConfig, invalid.to_string()))?;
    }
    Ok(())
}

fn definition(resource: &ConfigResource, name: &str) -> Option<&'static ConfigDef> {
    match resource {
        ConfigResource::Topic(_) => topic_config(name),
        ConfigResource::Broker(_) | ConfigResource::ClusterDefault => broker_config(name),
        ConfigResource::Group(_) => group_config(name),
        ConfigResource::ClientMetrics(_) => None,
    }
}

/// With a smaller `min.insync.replicas` an ISR may be enough by itself, and the high watermark moves on without the
/// ELR: its members stop being eligible in the same entry. And an unclean election may be allowed from now on.
fn review_partitions(draft: &mut Draft<'_>, resource: &ConfigResource) {
    let affected: Vec<TopicPartition> = match resource {
        ConfigResource::Topic(topic_id) => {
            let Some(topic) = draft.image.topic(*topic_id) else { return };
            let partitions = topic.indexed_partitions();
            partitions.map(|(partition, _)| TopicPartition { topic_id: *topic_id, partition }).collect()
        }
        ConfigResource::ClusterDefault => draft.image.partitions().map(|(partition, _)| partition).collect(),
        ConfigResource::Broker(_) | ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => return,
    };
    for partition in affected {
        let update = draft.update(partition);
        draft.apply(update);
    }
}
