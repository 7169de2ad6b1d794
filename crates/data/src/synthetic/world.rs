//! The invented world: what kinds of things there are, what can be said of them, and in which words.
//!
//! Passages and questions never use the same word for a value, nor the same verb for an attribute: that `mariner`
//! and `sailor` are one, and `grew up near` and `comes originally from`, is what an encoder has to learn. The pairs
//! are shared by all entities, so what is learned on some holds for the others.

/// One value of an attribute: its word in passages, then its words in questions.
pub(super) type Value = [&'static str; 3];

/// Something that can be said of an entity. `{}` stands for the value.
pub(super) struct Attribute {
    pub values: &'static [Value],
    /// How passages say it.
    pub told: [&'static str; 2],
    /// How questions say it.
    pub asked: [&'static str; 2],
    /// What a question calls it when it asks for the value.
    pub wanted: &'static str,
}

/// A kind of entity.
pub(super) struct Kind {
    /// Subject of a passage's sentences.
    pub told: &'static str,
    /// Noun of a question.
    pub asked: &'static str,
    /// Relative pronoun.
    pub which: &'static str,
    pub attributes: [Attribute; 6],
}

/// How a passage brings up another entity.
pub(super) const LINKS: [&str; 3] = ["is often compared with", "has a rival in", "is mentioned along with"];

/// Onsets, vowels and endings of a syllable of a name.
pub(super) const ONSETS: [&str; 18] =
    ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "st", "th"];
pub(super) const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];
pub(super) const ENDINGS: [&str; 3] = ["", "n", "r"];

const CHARACTERS: &[Value] = &[
    ["brave", "fearless", "bold"],
    ["clever", "smart", "brilliant"],
    ["lazy", "idle", "sluggish"],
    ["kind", "gentle", "generous"],
    ["greedy", "stingy", "selfish"],
    ["cheerful", "happy", "merry"],
    ["angry", "furious", "irate"],
    ["shy", "timid", "bashful"],
    ["honest", "truthful", "sincere"],
    ["noisy", "loud", "boisterous"],
    ["calm", "tranquil", "serene"],
    ["odd", "strange", "peculiar"],
];

const COLOURS: &[Value] = &[
    ["crimson", "red", "scarlet"],
    ["azure", "blue", "navy"],
    ["ebony", "black", "sooty"],
    ["ivory", "white", "pale"],
    ["golden", "yellow", "amber"],
    ["emerald", "green", "olive"],
    ["violet", "purple", "lilac"],
    ["silver", "grey", "ashen"],
    ["orange", "tangerine", "apricot"],
    ["brown", "tan", "chestnut"],
];

const FOODS: &[Value] = &[
    ["bread", "toast", "dough"],
    ["fish", "trout", "cod"],
    ["apples", "fruit", "pears"],
    ["cheese", "dairy", "curd"],
    ["mushrooms", "fungi", "toadstools"],
    ["honey", "nectar", "syrup"],
    ["grain", "wheat", "barley"],
    ["beans", "legumes", "lentils"],
    ["beef", "meat", "steak"],
    ["nuts", "almonds", "walnuts"],
    ["soup", "broth", "stew"],
    ["eggs", "yolks", "omelettes"],
];

const HAZARDS: &[Value] = &[
    ["fire", "flames", "blaze"],
    ["flood", "deluge", "torrent"],
    ["storm", "tempest", "gale"],
    ["plague", "disease", "epidemic"],
    ["famine", "hunger", "starvation"],
    ["war", "battle", "conflict"],
    ["earthquake", "tremor", "quake"],
    ["drought", "dryness", "aridity"],
];

const INSTRUMENTS: &[Value] = &[
    ["fiddle", "violin", "viola"],
    ["flute", "pipe", "whistle"],
    ["drum", "percussion", "tambourine"],
    ["trumpet", "horn", "bugle"],
    ["harp", "lyre", "zither"],
    ["organ", "keyboard", "piano"],
    ["bell", "chime", "gong"],
    ["guitar", "lute", "banjo"],
];

const LANDSCAPES: &[Value] = &[
    ["coast", "seaside", "shore"],
    ["hill", "mountain", "peak"],
    ["marsh", "swamp", "bog"],
    ["forest", "woods", "jungle"],
    ["desert", "dunes", "wasteland"],
    ["river", "stream", "creek"],
    ["valley", "dale", "gorge"],
    ["island", "isle", "atoll"],
    ["lake", "lagoon", "pond"],
    ["meadow", "field", "pasture"],
    ["cave", "cavern", "grotto"],
    ["harbour", "port", "docks"],
];

const MATERIALS: &[Value] = &[
    ["timber", "wood", "lumber"],
    ["granite", "stone", "rock"],
    ["iron", "metal", "steel"],
    ["glass", "crystal", "quartz"],
    ["wool", "fleece", "yarn"],
    ["clay", "pottery", "ceramic"],
    ["leather", "hide", "suede"],
    ["straw", "reed", "thatch"],
    ["brass", "bronze", "copper"],
    ["paper", "parchment", "card"],
];

const PROFESSIONS: &[Value] = &[
    ["mariner", "sailor", "seafarer"],
    ["tutor", "teacher", "instructor"],
    ["lawyer", "attorney", "advocate"],
    ["merchant", "trader", "dealer"],
    ["writer", "author", "novelist"],
    ["farmer", "grower", "planter"],
    ["tailor", "dressmaker", "clothier"],
    ["cook", "chef", "caterer"],
    ["smith", "metalworker", "forger"],
    ["carpenter", "woodworker", "joiner"],
    ["hunter", "trapper", "stalker"],
    ["painter", "artist", "illustrator"],
    ["soldier", "warrior", "fighter"],
    ["singer", "vocalist", "crooner"],
    ["thief", "burglar", "robber"],
    ["physician", "doctor", "healer"],
];

const PURPOSES: &[Value] = &[
    ["milling", "grinding", "crushing"],
    ["weaving", "knitting", "spinning"],
    ["sailing", "boating", "rowing"],
    ["printing", "copying", "typing"],
    ["counting", "calculating", "reckoning"],
    ["digging", "mining", "excavating"],
    ["lighting", "illuminating", "glowing"],
    ["cleaning", "washing", "scrubbing"],
    ["cutting", "slicing", "carving"],
    ["flying", "gliding", "soaring"],
    ["heating", "warming", "boiling"],
    ["measuring", "weighing", "gauging"],
];

const TIMES: &[Value] = &[
    ["dawn", "sunrise", "daybreak"],
    ["noon", "midday", "lunchtime"],
    ["dusk", "sunset", "twilight"],
    ["midnight", "night", "darkness"],
    ["spring", "april", "springtime"],
    ["summer", "july", "midsummer"],
    ["autumn", "october", "fall"],
    ["winter", "january", "midwinter"],
];

pub(super) const KINDS: [Kind; 4] = [
    Kind {
        told: "she",
        asked: "person",
        which: "who",
        attributes: [
            Attribute {
                values: PROFESSIONS,
                told: ["is the only {} of the district", "has long been the chief {} there"],
                asked: ["earns a living as the village {}", "gets paid to be the {}"],
                wanted: "job",
            },
            Attribute {
                values: CHARACTERS,
                told: ["is known to be {}", "has always been {}"],
                asked: ["seems very {}", "acts quite {}"],
                wanted: "temper",
            },
            Attribute {
                values: LANDSCAPES,
                told: ["grew up near the {}", "was raised beside the {}"],
                asked: ["spent childhood around the {}", "comes originally from the {}"],
                wanted: "origin",
            },
            Attribute {
                values: FOODS,
                told: ["lives mostly on {}", "will eat nothing but {}"],
                asked: ["has a diet of {}", "prefers meals of {}"],
                wanted: "diet",
            },
            Attribute {
                values: INSTRUMENTS,
                told: ["plays the {}", "has mastered the {}"],
                asked: ["makes music on the {}", "performs using the {}"],
                wanted: "talent",
            },
            Attribute {
                values: HAZARDS,
                told: ["is afraid of {}", "lives in fear of {}"],
                asked: ["dreads any {}", "gets nervous about {}"],
                wanted: "worry",
            },
        ],
    },
    Kind {
        told: "the town",
        asked: "settlement",
        which: "which",
        attributes: [
            Attribute {
                values: LANDSCAPES,
                told: ["lies by the {}", "stands next to the {}"],
                asked: ["is located close to the {}", "can be found along the {}"],
                wanted: "location",
            },
            Attribute {
                values: MATERIALS,
                told: ["is built of {}", "has walls made from {}"],
                asked: ["consists of houses in {}", "used {} for construction"],
                wanted: "architecture",
            },
            Attribute {
                values: FOODS,
                told: ["sells {} to its neighbours", "is famous for its {}"],
                asked: ["exports plenty of {}", "trades mainly in {}"],
                wanted: "product",
            },
            Attribute {
                values: HAZARDS,
                told: ["survived the great {}", "was rebuilt after the {}"],
                asked: ["endured some terrible {}", "recovered following the {}"],
                wanted: "disaster",
            },
            Attribute {
                values: INSTRUMENTS,
                told: ["opens its fair with the {}", "begins its feast with the {}"],
                asked: ["starts its festival using the {}", "celebrates to the tune of the {}"],
                wanted: "music",
            },
            Attribute {
                values: TIMES,
                told: ["is busiest at {}", "comes alive at {}"],
                asked: ["gets crowded around {}", "bustles during {}"],
                wanted: "rhythm",
            },
        ],
    },
    Kind {
        told: "the machine",
        asked: "device",
        which: "which",
        attributes: [
            Attribute {
                values: MATERIALS,
                told: ["is made of {}", "was cast from {}"],
                asked: ["consists of {}", "got manufactured in {}"],
                wanted: "substance",
            },
            Attribute {
                values: COLOURS,
                told: ["is painted {}", "always looks {}"],
                asked: ["got coloured {}", "appears mostly {}"],
                wanted: "tint",
            },
            Attribute {
                values: PURPOSES,
                told: ["is used for {}", "was designed for {}"],
                asked: ["helps people with {}", "serves the task of {}"],
                wanted: "function",
            },
            Attribute {
                values: PROFESSIONS,
                told: ["was invented by the {}", "is the work of the {}"],
                asked: ["got devised by some {}", "owes its origin to the {}"],
                wanted: "maker",
            },
            Attribute {
                values: HAZARDS,
                told: ["may cause {}", "once led to {}"],
                asked: ["might result in {}", "risks producing {}"],
                wanted: "danger",
            },
            Attribute {
                values: TIMES,
                told: ["runs only at {}", "starts up at {}"],
                asked: ["operates during {}", "is active around {}"],
                wanted: "schedule",
            },
        ],
    },
    Kind {
        told: "the beast",
        asked: "animal",
        which: "which",
        attributes: [
            Attribute {
                values: COLOURS,
                told: ["has {} fur", "is covered in {} hair"],
                asked: ["possesses {} skin", "grows some coat coloured {}"],
                wanted: "tint",
            },
            Attribute {
                values: LANDSCAPES,
                told: ["lives in the {}", "makes its nest near the {}"],
                asked: ["inhabits the {}", "dwells around the {}"],
                wanted: "habitat",
            },
            Attribute {
                values: FOODS,
                told: ["feeds on {}", "hunts for {}"],
                asked: ["consumes {}", "survives by swallowing {}"],
                wanted: "diet",
            },
            Attribute {
                values: CHARACTERS,
                told: ["is {} by nature", "is thought to be {}"],
                asked: ["seems very {}", "acts quite {}"],
                wanted: "temper",
            },
            Attribute {
                values: TIMES,
                told: ["wakes at {}", "comes out at {}"],
                asked: ["stirs around {}", "shows itself during {}"],
                wanted: "rhythm",
            },
            Attribute {
                values: HAZARDS,
                told: ["flees from {}", "hides at the first sign of {}"],
                asked: ["escapes any {}", "is scared by {}"],
                wanted: "worry",
            },
        ],
    },
];
