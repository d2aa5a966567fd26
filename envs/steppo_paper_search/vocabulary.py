"""The words of the built-in library: invented fields of research, methods and phrasings."""

from dataclasses import dataclass

__all__ = [
    "ABSTRACTS",
    "ALIAS_OBJECTS",
    "ALIAS_VERBS",
    "BENCHMARK_ABSTRACTS",
    "BENCHMARK_SUFFIXES",
    "METHOD_ABSTRACTS",
    "METHOD_KINDS",
    "METHOD_NOUNS",
    "PLAIN_TITLES",
    "SYLLABLES",
    "TITLES_WITH_METHOD",
    "TOPICS",
    "Topic",
]


@dataclass(frozen=True, slots=True)
class Topic:
    """A field: its name, what its papers set out to do, and the words they use."""

    name: str
    tasks: tuple[str, ...]
    words: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _topic(name: str, tasks: str, words: str) -> Topic:
    return Topic(name, tuple(tasks.split("; ")), _words(words))


TOPICS = (
    _topic(
        "glacier hydrology",
        "meltwater routing; crevasse mapping; basal drainage inversion; calving forecasts; "
        "firn aquifer detection",
        "moulin subglacial ablation discharge icefall sediment borehole seasonality",
    ),
    _topic(
        "urban acoustics",
        "street noise attribution; courtyard reverberation modelling; siren localisation; "
        "facade absorption estimation; night-time soundscape rating",
        "decibel canyon loudspeaker echo traffic barrier annoyance microphone",
    ),
    _topic(
        "protein design",
        "loop grafting; binder affinity ranking; disorder prediction; helix packing; "
        "allosteric site discovery",
        "residue backbone fold scaffold energy mutation sidechain docking",
    ),
    _topic(
        "warehouse robotics",
        "tote picking; shelf replenishment planning; aisle traffic control; pallet stacking; "
        "gripper slip recovery",
        "conveyor payload suction depot collision throughput barcode fleet",
    ),
    _topic(
        "code review automation",
        "defect comment generation; reviewer assignment; patch risk scoring; "
        "review thread summarisation; style violation repair",
        "commit repository merge diff maintainer compiler refactoring linter",
    ),
    _topic(
        "coral ecology",
        "bleaching alerts; larval dispersal tracking; reef fish counting; algal cover estimation; "
        "skeleton growth dating",
        "polyp lagoon symbiont turbidity transect spawning acidification reefscape",
    ),
    _topic(
        "power grid operation",
        "feeder fault location; load shedding decisions; inverter oscillation damping; "
        "line rating estimation; outage restoration planning",
        "substation voltage busbar transformer phasor curtailment islanding dispatch",
    ),
    _topic(
        "clinical triage",
        "sepsis early warning; bed allocation; chest pain stratification; nurse handover notes; "
        "readmission risk scoring",
        "ward vital admission comorbidity lactate acuity clinician cohort",
    ),
    _topic(
        "historical linguistics",
        "cognate detection; sound law induction; loanword dating; proto-form reconstruction; "
        "script decipherment",
        "phoneme dialect lexicon manuscript vowel etymology inscription lineage",
    ),
    _topic(
        "battery chemistry",
        "dendrite suppression; electrolyte screening; capacity fade prediction; "
        "separator wetting control; cathode crack imaging",
        "lithium anode electrode cycling impedance solvent ion calendering",
    ),
    _topic(
        "satellite imaging",
        "cloud gap filling; ship wake detection; roof damage grading; crop parcel delineation; "
        "orbit drift correction",
        "swath radar pixel multispectral geolocation nadir albedo tile",
    ),
    _topic(
        "choral music analysis",
        "voice leading retrieval; intonation tracking; breath point annotation; "
        "text underlay alignment; blend assessment",
        "soprano cadence motet polyphony choir vibrato score counterpoint",
    ),
    _topic(
        "river navigation",
        "shoal charting; lock queue scheduling; bridge clearance forecasting; barge wake limiting; "
        "ice jam prediction",
        "draught fairway towboat gauge channel dredging hydrograph convoy",
    ),
    _topic(
        "peer-to-peer lending",
        "default forecasting; loan text screening; herd bidding detection; recovery rate modelling; "
        "borrower identity linking",
        "borrower lender instalment platform collateral delinquency covenant yield",
    ),
    _topic(
        "bird migration",
        "stopover identification; flight call recognition; radar roost detection; "
        "wind drift compensation; arrival date prediction",
        "flyway geolocator plumage nocturnal ringing passerine altitude wetland",
    ),
    _topic(
        "concrete durability",
        "chloride ingress prediction; crack width sensing; rebar corrosion detection; "
        "curing temperature control; spalling assessment",
        "cement aggregate carbonation porosity mortar admixture slab hydration",
    ),
    _topic(
        "sign language processing",
        "fingerspelling recognition; gloss translation; signer anonymisation; "
        "non-manual marker tagging; avatar smoothing",
        "handshape signer gesture facial transcript interpreter keypoint corpus",
    ),
    _topic(
        "vineyard management",
        "downy mildew scouting; irrigation timing; berry ripeness mapping; pruning guidance; "
        "frost exposure ranking",
        "canopy trellis cultivar phenology bunch terroir soil harvest",
    ),
    _topic(
        "museum conservation",
        "varnish ageing assessment; pigment identification; canvas tear mending; "
        "display light budgeting; forgery screening",
        "painting fresco spectrometry restorer binder craquelure archive gallery",
    ),
    _topic(
        "deep sea mining",
        "nodule abundance mapping; plume spread modelling; riser fatigue estimation; "
        "crawler path planning; benthos recovery monitoring",
        "abyssal seabed manganese trench collector turbid sonar vessel",
    ),
    _topic(
        "air traffic control",
        "arrival sequencing; turbulence encounter prediction; runway occupancy estimation; "
        "readback error detection; sector workload balancing",
        "cockpit waypoint altimeter holding controller taxiway descent clearance",
    ),
    _topic(
        "volcano monitoring",
        "tremor classification; gas flux retrieval; dome growth tracking; lahar alarm design; "
        "ash column estimation",
        "magma caldera fumarole seismometer eruption tiltmeter summit degassing",
    ),
    _topic(
        "textile recycling",
        "fibre blend sorting; zip removal; dye stripping; yarn strength prediction; "
        "garment age grading",
        "cotton polyester shredding fabric spinning collection solvent lint",
    ),
    _topic(
        "pediatric dentistry",
        "caries onset prediction; eruption chart reading; dental anxiety rating; sealant retention; "
        "bite wing segmentation",
        "enamel molar plaque fluoride orthodontic radiograph gum toddler",
    ),
    _topic(
        "legal drafting",
        "clause conflict detection; definition linking; obligation extraction; "
        "precedent retrieval; plain language rewriting",
        "statute contract counsel provision tribunal amendment jurisdiction liability",
    ),
    _topic(
        "greenhouse climate",
        "vent control; dew point forecasting; leaf temperature sensing; carbon dosing; "
        "lamp schedule planning",
        "tomato glazing humidity setpoint screen transpiration seedling heating",
    ),
    _topic(
        "railway maintenance",
        "rail squat detection; switch failure prediction; ballast fouling estimation; "
        "catenary wear tracking; inspection train routing",
        "sleeper wheelset axle track locomotive timetable ultrasound bogie",
    ),
    _topic(
        "sleep science",
        "apnea event scoring; spindle detection; jet lag recovery modelling; dream report coding; "
        "infant nap prediction",
        "polysomnography circadian arousal cortex melatonin insomnia electrode hypnogram",
    ),
    _topic(
        "wildfire behaviour",
        "spread rate prediction; ember storm modelling; fuel moisture mapping; "
        "evacuation trigger setting; burn scar grading",
        "crown litter humidity firebreak slope ignition canopy smoke",
    ),
    _topic(
        "emergency logistics",
        "shelter siting; convoy rerouting; blood stock balancing; drone relief dropping; "
        "volunteer matching",
        "flood depot supply responder hurricane inventory airlift displaced",
    ),
)

METHOD_KINDS = _words(
    "graded folded tandem sparse braided anchored latent mirrored gated nested causal layered "
    "elastic shifted quantised annealed coupled truncated iterated contrastive"
)
METHOD_NOUNS = _words(
    "lattices kernels flows transducers sieves bandits cascades splines ensembles automata "
    "manifolds priors tournaments wavelets encoders percolation transport hashing"
)
ALIAS_VERBS = _words(
    "discarding merging reordering delaying weighting copying rotating masking splitting "
    "borrowing penalising recycling"
)
ALIAS_OBJECTS = (
    "uncertain neighbours",
    "stale partial sums",
    "low-ranked cells",
    "overlapping windows",
    "rare transitions",
    "redundant views",
    "coarse intermediate maps",
    "conflicting votes",
    "early candidates",
    "boundary samples",
    "unlabelled fragments",
    "distant pairs",
    "inherited constraints",
    "repeated motifs",
    "late corrections",
)
SYLLABLES = _words("ve lor mar ka ten bri sol du fen gal pio ras tul nim ho zer wes qua lin jo")
BENCHMARK_SUFFIXES = ("-9", "-20k", " Open", "-XL", " Archive", "-2M", " Field Set", " Mini")

TITLES_WITH_METHOD = (
    "{Method} for {task}",
    "{Task} with {method}",
    "Can {method} help {task}?",
    "{Method} and the {word} problem in {task}",
    "Robust {task} through {method}",
    "Scaling {method} to {word} data for {task}",
)
PLAIN_TITLES = (
    "On the role of {word} in {task}",
    "Rethinking {task}",
    "{Task} under {word} shift",
    "What {word} records tell about {task}",
    "Towards dependable {task} without {word} labels",
    "A second look at {word} and {other} in {task}",
)

ABSTRACTS = (
    (
        "{Topic} increasingly depends on {task}.",
        "Practitioners of {topic} meet {task} every day.",
        "Progress on {task} has been uneven.",
        "{Task} remains a bottleneck where {word} and {other} interact.",
    ),
    (
        "Existing systems treat {word} as given and break down once {other} varies.",
        "Earlier work looked at {word} alone, although {other} decides most failures.",
        "Annotations of {word} are costly, and {other} is seldom recorded.",
        "Common baselines ignore how {word} changes with {other}.",
    ),
    (
        "We study {approach} in this setting and derive a practical procedure.",
        "Our approach rests on {approach}, adapted to {word} measurements.",
        "This paper applies {approach} and explains when it is worthwhile.",
        "We revisit the question with {approach} and a careful protocol.",
    ),
    (
        "Experiments on {dataset} show consistent gains.",
        "On {dataset} the error falls by {number} percent.",
        "Results on {dataset} hold across {number} sites.",
        "We report {number} ablations on {dataset}.",
    ),
    (
        "An analysis of {other} explains where the remaining errors come from.",
        "The benefit is largest when {other} is scarce.",
        "We discuss limits, among them {word} bias.",
        "Guidance for {topic} teams closes the paper.",
    ),
)
METHOD_ABSTRACTS = (
    (
        "We introduce {method}, a family of procedures for {topic}. The key idea is {alias}. "
        "We derive its cost, relate it to {word} and {other}, and give a first demonstration."
    ),
    (
        "{Method} is proposed as a general tool in {topic}. It works by {alias}, which keeps the "
        "estimate stable when {word} is noisy. Small studies with {other} illustrate the idea."
    ),
)
BENCHMARK_ABSTRACTS = (
    (
        "{Dataset} gathers {number} thousand curated cases from {topic}, with {word} and {other} "
        "annotations, fixed splits and a public scoring tool."
    ),
    (
        "We release {dataset}, a collection for {topic} that covers {word}, {other} and their joint "
        "variation. We describe how it was gathered and report reference results."
    ),
)
