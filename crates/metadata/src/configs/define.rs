//! The words in which the tables of configs are written.

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfigDef {
    pub name: &'static str,
    pub config_type: ConfigType,
    /// As text; `None` where Kafka's is null or the setting is required.
    pub default: Option<&'static str>,
    pub importance: Importance,
    pub valid: Valid,
    /// Whether it can change while the broker runs. Topic and group configs always can.
    pub dynamic: DynamicScope,
    /// The broker configs that give a topic config its value where the topic does not, in order of precedence.
    pub synonyms: &'static [BrokerSynonym],
    /// Whether Vltava acts on it. Others are accepted with a warning.
    pub is_honoured: bool,
    /// Not shown by DescribeConfigs.
    pub is_internal: bool,
    pub documentation: &'static str,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    /// Separated by commas.
    List,
    /// A Java class in Kafka.
    Class,
    /// Never shown.
    Password,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// Where a broker config can be set while brokers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicScope {
    /// In the properties file only.
    ReadOnly,
    /// On one broker.
    PerBroker,
    /// On one broker or on all.
    ClusterWide,
}

/// Which values of the type are valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    BetweenOr(i64, i64, i64),
    Fraction(f64, f64),
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    NotEmpty,
    /// `*`, or partition:broker pairs.
    ThrottledReplicas,
}

/// A broker config behind a topic config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerSynonym {
    pub name: &'static str,
    /// What its values are multiplied with to get the topic config's unit.
    pub scale: i64,
}

impl ConfigType {
    /// The number in DescribeConfigs responses.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }
}

impl ConfigDef {
    /// Whether the value is a secret.
    #[must_use]
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.config_type, ConfigType::Password)
    }

    const fn new(
        name: &'static str,
        config_type: ConfigType,
        default: Option<&'static str>,
        importance: Importance,
    ) -> Self {
        Self {
            name,
            config_type,
            default,
            importance,
            valid: Valid::Any,
            dynamic: DynamicScope::ReadOnly,
            synonyms: &[],
            is_honoured: false,
            is_internal: false,
            documentation: "",
        }
    }

    pub(super) const fn valid(mut self, valid: Valid) -> Self {
        self.valid = valid;
        self
    }

    pub(super) const fn at_least(self, least: i64) -> Self {
        self.valid(Valid::AtLeast(least))
    }

    pub(super) const fn between(self, least: i64, most: i64) -> Self {
        self.valid(Valid::Between(least, most))
    }

    pub(super) const fn one_of(self, values: &'static [&'static str]) -> Self {
        self.valid(Valid::OneOf(values))
    }

    pub(super) const fn list_of(self, values: &'static [&'static str]) -> Self {
        self.valid(Valid::ListOf(values))
    }

    pub(super) const fn per_broker(mut self) -> Self {
        self.dynamic = DynamicScope::PerBroker;
        self
    }

    pub(super) const fn cluster_wide(mut self) -> Self {
        self.dynamic = DynamicScope::ClusterWide;
        self
    }

    pub(super) const fn synonyms(mut self, synonyms: &'static [BrokerSynonym]) -> Self {
        self.synonyms = synonyms;
        self
    }

    pub(super) const fn honoured(mut self) -> Self {
        self.is_honoured = true;
        self
    }

    pub(super) const fn internal(mut self) -> Self {
        self.is_internal = true;
        self
    }

    pub(super) const fn says(mut self, documentation: &'static str) -> Self {
        self.documentation = documentation;
        self
    }
}

/// Declares, for each type, a constructor with a default and one without.
macro_rules! constructors {
    ($($with_default:ident, $without:ident: $config_type:ident;)*) => {
        $(
            pub(super) const fn $with_default(
                name: &'static str,
                default: &'static str,
                importance: Importance,
            ) -> ConfigDef {
                ConfigDef::new(name, ConfigType::$config_type, Some(default), importance)
            }

            #[allow(dead_code, reason = "not every type has a config without default")]
            pub(super) const fn $without(name: &'static str, importance: Importance) -> ConfigDef {
                ConfigDef::new(name, ConfigType::$config_type, None, importance)
            }
        )*
    };
}

constructors! {
    boolean, unset_boolean: Boolean;
    string, unset_string: String;
    int, unset_int: Int;
    short, unset_short: Short;
    long, unset_long: Long;
    double, unset_double: Double;
    list, unset_list: List;
    class, unset_class: Class;
}

pub(super) const fn password(name: &'static str, importance: Importance) -> ConfigDef {
    ConfigDef::new(name, ConfigType::Password, None, importance)
}

pub(super) const fn same_unit(name: &'static str) -> BrokerSynonym {
    BrokerSynonym { name, scale: 1 }
}

pub(super) const fn in_minutes(name: &'static str) -> BrokerSynonym {
    BrokerSynonym { name, scale: 60 * 1000 }
}

pub(super) const fn in_hours(name: &'static str) -> BrokerSynonym {
    BrokerSynonym { name, scale: 60 * 60 * 1000 }
}
