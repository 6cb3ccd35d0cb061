//! `meta.properties`: whose directory this is.

use vltava_types::{BrokerId, DirectoryId};

/// The contents of `meta.properties` (version 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    pub node_id: BrokerId,
    pub cluster_id: String,
    /// Random, given at the directory's first use; a wiped directory gets another one (KIP-853, KIP-858).
    pub directory_id: DirectoryId,
}

impl MetaProperties {
    pub(crate) const FILE_NAME: &'static str = "meta.properties";

    pub(crate) fn print(&self) -> String {
        format!(
            "version=1\nnode.id={}\ncluster.id={}\ndirectory.id={}\n",
            self.node_id, self.cluster_id, self.directory_id
        )
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            text.lines()
                .map(str::trim)
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim())
                .ok_or_else(|| format!("{key} is missing"))
        };
        if value("version")? != "1" {
            return Err("unknown version".to_owned());
        }
        let node_id = value("node.id")?.parse().map_err(|_| "node.id is not a number".to_owned())?;
        let directory_id = value("directory.id")?.parse().map_err(|error| format!("directory.id is {error}"))?;
        Ok(Self {
            node_id: BrokerId(node_id),
            cluster_id: value("cluster.id")?.to_owned(),
            directory_id: DirectoryId(directory_id),
        })
    }
}

#[cfg(test)]
mod tests {
    use vltava_types::{BrokerId, DirectoryId};

    use super::MetaProperties;

    #[test]
    fn text_round_trips_and_comments_are_skipped() {
        let properties = MetaProperties {
            node_id: BrokerId(3),
            cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
            directory_id: DirectoryId::from_random([7; 16]),
        };
        assert_eq!(MetaProperties::parse(&properties.print()), Ok(properties.clone()));
        assert_eq!(MetaProperties::parse(&format!("#\n#Sat Nov 21\n{}", properties.print())), Ok(properties));
        assert!(MetaProperties::parse("version=1\nnode.id=3\ncluster.id=a\n").is_err());
        assert!(MetaProperties::parse("version=0\nbroker.id=3\n").is_err());
    }
}
