"""Built-in prompts, written for specdec: one mixed set, and six small tasks."""

from __future__ import annotations

from specdec.bench.prompt_sets import PromptSet

# What ``specdec bench`` measures on without ``--data``: quick, a bit of everything.
MIXED = PromptSet(
    "built-in",
    (
        "Write a Python function that returns the sum of a list of numbers.",
        "Explain in simple words why the sky is blue.",
        "Tell me a short story about a fox who wants to learn to swim.",
        "A baker sells 12 rolls an hour for 7 hours. How many rolls does she sell?",
        "Give me five ideas for a cheap birthday present.",
        "What is the difference between weather and climate?",
        "Summarize: Bees live in colonies. In winter they gather around the queen, shiver to keep "
        "her warm, and live on the honey that they stored in summer.",
        "Write a polite letter that asks a neighbour to play music less loudly at night.",
    ),
)

_CONVERSATION = PromptSet(
    "conversation",
    (
        "I want to start running, but I get tired after two minutes. What should I do in the first "
        "week?",
        "Suggest a name for a small bookshop that also sells tea, and say why it fits.",
        "My tomato plants have yellow leaves at the bottom. What may be the reason?",
    ),
    (
        ("And in the second week? Write it as a plan for seven days.",),
        ("Now write an advertisement of three sentences for the shop with that name.",),
        ("How can I find out which of these it is, without buying anything?",),
    ),
)
_TRANSLATION = PromptSet(
    "translation",
    (
        "Translate into German: The ferry leaves at half past six, and the last bus waits for it.",
        "Translate into French: My grandmother kept every letter that she ever got in a blue box.",
        "Translate into Spanish: If it rains tomorrow we will paint the kitchen instead of the "
        "fence.",
    ),
)
_SUMMARIZATION = PromptSet(
    "summarization",
    (
        "Summarize in two sentences: The town council met on Monday to talk about the old bridge. "
        "Engineers had found rust in two of its beams, and said that it would be safe for bicycles "
        "but not for trucks. Some shop owners fear to lose customers if the bridge is closed. The "
        "council will close it to trucks at once, ask for money for the repair, and decide in "
        "autumn whether to build a new one.",
        "Summarize in one sentence: Octopuses can open jars, find their way through mazes and "
        "remember what they learned for weeks. They do so with a nervous system of which more than "
        "half lies in the arms. Most of them live for only one or two years, and no octopus learns "
        "anything from its parents.",
        "Write a headline and a summary of two sentences: A class of twelve pupils in a village "
        "school counted the swifts that nest under the roofs of its main street. They found 31 "
        "nests, nine fewer than their teacher had counted at the same age. With wood from a "
        "carpenter they built twenty nest boxes, and five of these were used in the first spring.",
    ),
)
_QUESTIONS = PromptSet(
    "questions",
    (
        "Why does ice float on water?",
        "Which organ of the body pumps the blood, and how many chambers does it have?",
        "The library opens at ten on weekdays and at noon on Saturdays; on Sundays it is closed. "
        "The children's room closes at five, the rest at seven. With this text answer: until when "
        "can a child borrow a book in the children's room on a Saturday, and from when?",
    ),
)
_MATHEMATICS = PromptSet(
    "mathematics",
    (
        "Mara has 45 stickers. She gives 8 to each of her 4 cousins, then buys 12 more. How many "
        "has she now? Explain step by step.",
        "A train travels 180 km in 2 hours and then 120 km in 1 hour. What is its average speed? "
        "Explain step by step.",
        "A jacket costs 80 euros. It is reduced by a quarter, and then by another 10 euros. What "
        "does it cost now? Explain step by step.",
    ),
)
_CODE = PromptSet(
    "code",
    (
        "Write a Python function that says whether a text reads the same forwards and backwards. "
        "Ignore spaces and capitals.",
        "Write a Python class for a stack with the methods push, pop and size, and raise an error "
        "when an empty stack is popped.",
        "Complete this function:\n\n"
        "def most_common_word(text):\n"
        '    """Return the word that is most frequent in text, in lower case."""\n'
        "    counts = {}\n",
    ),
)

# What ``specdec bench paper`` compares on without ``--data``: a set for each kind of task.
TASKS = (_CONVERSATION, _TRANSLATION, _SUMMARIZATION, _QUESTIONS, _MATHEMATICS, _CODE)
