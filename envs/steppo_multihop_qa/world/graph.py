"""The facts of the world: entities of each split and what relates them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steppo_multihop_qa.world.names import Dice, Namer

__all__ = ["SPLIT_SIZES", "Entity", "Graph", "make_graph"]


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that has a passage. `trade` is a person's occupation or a company's business."""

    entity_id: int
    kind: str
    name: str
    split: str
    trade: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Entities in order of id, and facts: each subject and relation has at most one value.

    A value is the id of an entity, or a text: a year, a date as YYYY-MM-DD, a length, a name.
    """

    entities: list[Entity] = field(default_factory=list)
    facts: dict[tuple[int, str], int | str] = field(default_factory=dict)

    def value(self, subject: int, relation: str) -> int | str | None:
        """Return the value of a fact, or None when the world does not say."""
        return self.facts.get((subject, relation))

    def relations(self, subject: int) -> Mapping[str, int | str]:
        """Return every fact about a subject, in the order the world was made."""
        names = _RELATIONS[self.entities[subject].kind]
        return {name: self.facts[subject, name] for name in names if (subject, name) in self.facts}


_RELATIONS: Mapping[str, tuple[str, ...]] = {
    "country": ("capital", "currency", "language"),
    "river": ("length", "sea"),
    "city": ("country", "river", "founded"),
    "university": ("seat", "founded"),
    "person": ("birth_date", "birthplace", "university", "spouse"),
    "company": ("founder", "home", "founded"),
    "book": ("author", "publisher", "published"),
    "film": ("director", "star", "book", "studio", "released"),
    "band": ("singer", "origin", "formed"),
    "album": ("band", "producer", "released"),
    "festival": ("place", "since"),
}

_TRAIN_SIZES: Mapping[str, int] = {
    "country": 9,
    "river": 18,
    "city": 50,
    "university": 26,
    "person": 400,
    "company": 66,
    "book": 90,
    "film": 150,
    "band": 60,
    "album": 100,
    "festival": 26,
}
_SHARES = {"train": 1.0, "dev": 0.42, "test": 0.42}
SPLIT_SIZES: Mapping[str, Mapping[str, int]] = {
    split: {kind: round(count * share) for kind, count in _TRAIN_SIZES.items()}
    for split, share in _SHARES.items()
}
"""Number of entities by split and kind."""

# Years of birth by trade, so that nobody works before birth or long after death.
_TRADES: Mapping[str, tuple[int, int]] = {
    "film director": (1900, 1965),
    "actor": (1900, 1975),
    "novelist": (1880, 1915),
    "singer": (1935, 1978),
    "entrepreneur": (1845, 1872),
    "record producer": (1935, 1985),
    "botanist": (1850, 1980),
    "architect": (1850, 1980),
    "painter": (1850, 1980),
    "physician": (1850, 1980),
}
_NUM_ARTS = 6
"""Trades, from the first, whose people are named by works and companies."""
_BUSINESSES: Mapping[str, str] = {
    "film studio": "Pictures",
    "publishing house": "Press",
    "shipping company": "Lines",
}


def make_graph(dice: Dice) -> Graph:
    """Return the world's facts: each split has its own entities, related to no other split's."""
    graph, namer = Graph(), Namer(dice)
    for split, sizes in SPLIT_SIZES.items():
        _SplitMaker(graph, namer, dice, split, sizes).run()
    return graph


class _SplitMaker:
    """Makes the entities and facts of one split."""

    def __init__(
        self, graph: Graph, namer: Namer, dice: Dice, split: str, sizes: Mapping[str, int]
    ) -> None:
        self._graph, self._namer, self._dice = graph, namer, dice
        self._split, self._sizes = split, sizes

    def run(self) -> None:
        cities = self._places()
        people = self._people(cities)
        companies = self._companies(cities, people["entrepreneur"])
        self._works(people, companies)
        self._music(cities, people)
        for city in self._dice.shuffled(cities)[: self._sizes["festival"]]:
            festival = self._add("festival", self._namer.fixed(f"{self._name(city)} Film Festival"))
            self._relate(festival, place=city, since=self._year(1925, 2005))

    def _places(self) -> list[int]:
        dice, namer, sizes = self._dice, self._namer, self._sizes
        countries = [self._add("country", namer.word("ia")) for _ in range(sizes["country"])]
        rivers = [self._add("river", f"{namer.word()} River") for _ in range(sizes["river"])]
        cities = [self._add("city", namer.word()) for _ in range(sizes["city"])]
        seas = [f"{namer.word()} Sea" for _ in range(3)]
        for river in rivers:
            self._relate(river, length=f"{dice.between(60, 1900)} kilometres", sea=dice.pick(seas))
        for number, city in enumerate(cities):
            self._relate(
                city,
                country=countries[number % len(countries)],
                river=dice.pick(rivers) if dice.chance(0.8) else None,
                founded=self._year(1050, 1390),
            )
        for number, country in enumerate(countries):
            language, currency = namer.word("ish"), namer.word()
            capital = cities[number]
            self._relate(country, capital=capital, currency=currency.lower(), language=language)
        forms = ("University", "Institute of Technology", "Academy of Arts")
        for number in range(sizes["university"]):
            # Not named after its city: a question about it would give away the first hop.
            name = f"{namer.word()} {forms[number % len(forms)]}"
            seat = dice.pick(cities)
            self._relate(self._add("university", name), seat=seat, founded=self._year(1400, 1840))
        return cities

    def _people(self, cities: Sequence[int]) -> dict[str, list[int]]:
        dice, count = self._dice, self._sizes["person"]
        # Three or four people share a surname, so that a name alone does not find a person.
        surnames = [self._namer.word() for _ in range(count * 2 // 7)]
        universities = self._ids("university")
        by_trade: dict[str, list[int]] = {trade: [] for trade in _TRADES}
        for number in range(count):
            trade = list(_TRADES)[number % len(_TRADES)]
            name = self._namer.person(surnames[number % len(surnames)])
            person = self._add("person", name, trade)
            by_trade[trade].append(person)
            day = f"{dice.between(1, 12):02d}-{dice.between(1, 28):02d}"
            self._relate(
                person,
                birth_date=f"{self._year(*_TRADES[trade])}-{day}",
                birthplace=dice.pick(cities),
                university=dice.pick(universities) if dice.chance(0.7) else None,
            )
        self._marry(list(by_trade.values()))
        return by_trade

    def _marry(self, by_trade: Sequence[Sequence[int]]) -> None:
        """Marry people of the arts to the others, by age.

        Only one of the two passages names the marriage: every fact is told in one place.
        """
        artists = [person for people in by_trade[:_NUM_ARTS] for person in people]
        others = [person for people in by_trade[_NUM_ARTS:] for person in people]
        chosen = self._dice.shuffled(artists)[: len(others)]
        for artist, other in zip(sorted(chosen, key=self._born), sorted(others, key=self._born)):
            self._relate(artist, spouse=other)

    def _companies(self, cities: Sequence[int], founders: Sequence[int]) -> dict[str, list[int]]:
        by_business: dict[str, list[int]] = {business: [] for business in _BUSINESSES}
        for number in range(self._sizes["company"]):
            business = list(_BUSINESSES)[number % len(_BUSINESSES)]
            name = f"{self._namer.word()} {_BUSINESSES[business]}"
            company = self._add("company", name, business)
            by_business[business].append(company)
            founder = self._dice.pick(founders)
            self._relate(
                company,
                founder=founder,
                home=self._dice.pick(cities),
                founded=self._year_of_age(founder, 23, 32),
            )
        return by_business

    def _works(
        self, people: Mapping[str, Sequence[int]], companies: Mapping[str, Sequence[int]]
    ) -> None:
        dice = self._dice
        books = [self._add("book", self._namer.title()) for _ in range(self._sizes["book"])]
        for book in books:
            author = dice.pick(people["novelist"])
            self._relate(
                book,
                author=author,
                publisher=dice.pick(companies["publishing house"]),
                published=self._year_of_age(author, 26, 60),
            )
        for _ in range(self._sizes["film"]):
            director = dice.pick(people["film director"])
            released = self._year_of_age(director, 28, 55)
            older = [book for book in books if str(self._graph.facts[book, "published"]) < released]
            self._relate(
                self._add("film", self._namer.title()),
                director=director,
                star=self._adult(people["actor"], released),
                book=dice.pick(older) if older and dice.chance(0.45) else None,
                studio=dice.pick(companies["film studio"]),
                released=released,
            )

    def _music(self, cities: Sequence[int], people: Mapping[str, Sequence[int]]) -> None:
        dice = self._dice
        bands = [self._add("band", self._namer.band()) for _ in range(self._sizes["band"])]
        for band in bands:
            singer = dice.pick(people["singer"])
            self._relate(
                band,
                singer=singer,
                origin=dice.pick(cities),
                formed=self._year_of_age(singer, 19, 30),
            )
        for _ in range(self._sizes["album"]):
            band = dice.pick(bands)
            formed = int(self._graph.facts[band, "formed"])
            released = self._year(formed + 1, formed + 12)
            self._relate(
                self._add("album", self._namer.title()),
                band=band,
                producer=self._adult(people["record producer"], released),
                released=released,
            )

    def _born(self, person: int) -> int:
        return int(str(self._graph.facts[person, "birth_date"])[:4])

    def _year_of_age(self, person: int, youngest: int, oldest: int) -> str:
        born = self._born(person)
        return self._year(born + youngest, born + oldest)

    def _adult(self, people: Sequence[int], year: str) -> int | None:
        """Return somebody between 20 and 75 in a year, or None when nobody is."""
        adults = [person for person in people if 20 <= int(year) - self._born(person) <= 75]
        return self._dice.pick(adults) if adults else None

    def _add(self, kind: str, name: str, trade: str = "") -> int:
        entity_id = len(self._graph.entities)
        self._graph.entities.append(Entity(entity_id, kind, name, self._split, trade))
        return entity_id

    def _relate(self, subject: int, **values: int | str | None) -> None:
        for relation, value in values.items():
            if value is not None:
                self._graph.facts[subject, relation] = value

    def _ids(self, kind: str) -> list[int]:
        return [
            entity.entity_id
            for entity in self._graph.entities
            if entity.kind == kind and entity.split == self._split
        ]

    def _name(self, entity: int) -> str:
        return self._graph.entities[entity].name

    def _year(self, first: int, last: int) -> str:
        return str(self._dice.between(first, last))
