//! How a section of a spec is declared.

/// Declares a section as typed (every field optional) and as resolved (every field there). `tables`
/// are sections within the section, each declared likewise.
macro_rules! layered {
    ($(#[$meta:meta])* $typed:ident => $resolved:ident {
        $( $(#[$doc:meta])* $field:ident : $ty:ty ),* $(,)?
    } $( tables { $( $(#[$table_doc:meta])* $table:ident : $table_typed:ty => $table_resolved:ty ),* $(,)? } )?) => {
        #[doc = concat!("As typed; see [`", stringify!($resolved), "`].")]
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $typed {
            $( pub $field: Option<$ty>, )*
            $( $( pub $table: Option<$table_typed>, )* )?
        }

        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $resolved {
            $( $(#[$doc])* pub $field: $ty, )*
            $( $( $(#[$table_doc])* pub $table: $table_resolved, )* )?
        }

        impl $typed {
            /// The typed fields over `base`'s.
            pub fn over(self, base: $resolved) -> $resolved {
                $resolved {
                    $( $field: self.$field.unwrap_or(base.$field), )*
                    $( $( $table: self.$table.unwrap_or_default().over(base.$table), )* )?
                }
            }
        }
    };
}

pub(super) use layered;
