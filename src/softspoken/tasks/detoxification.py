"""Toxic sentences → neutral rewrites that say the same: TextDetox's task, on ParaDetox's columns.

J is the product of three factors, sentence by sentence (Dementieva et al. 2024): style, similarity of meaning and fluency, where
fluency is chrF with the references. The factors' own judges at TextDetox are of the hub; here each can be any reward:

    --measure style=hf:textdetox/xlmr-large-toxicity-classifier:LABEL_0 similarity=cosine:sentence-transformers/LaBSE
    --measure fluency=hf:textattack/roberta-base-CoLA:LABEL_1        (as in ParaDetox's paper: needs no references)
"""

from softspoken.tasks.task import Guard, Measure, Objective, Task, Words

GROUP = "Joint score and its factors"
TASK = Task(
    name="detoxification",
    words=Words("sentence", "sentences", "rewrite", "rewrites"),
    text_column="toxic",
    reference_column="neutral",
    template="Rewrite politely: {text}",
    objective=Objective("J", "higher"),
    guards=(
        Guard(
            "similarity",
            margin=0.02,
            kept="kept the meaning",
            gained="came closer to the sentences' meaning",
            lost="lost meaning",
        ),
    ),
    guarded="meaning",
    reward="{style} * {similarity} * {fluency}",
    judge="mini",
    terms={"style": "mini", "similarity": "cosine:mini", "fluency": "chrf"},
    products={"J": ("style", "similarity", "fluency")},
    baselines=("copy", "delete"),
    measures={
        "J": Measure("J", "style × similarity × fluency of a {response}, on average", "fraction", "higher", GROUP),
        "style": Measure("Style", "how far from toxic a {response} is, 0 to 1", "fraction", "higher", GROUP),
        "similarity": Measure("Similarity", "of meaning, {response} and {text}, 0 to 1", "fraction", "higher", GROUP),
        "fluency": Measure("Fluency", "of the {response}, 0 to 1", "fraction", "higher", GROUP),
    },
    overview=("style", "fluency", "toxicity"),
    purpose="rewrites toxic sentences so that they say the same without the abuse",
    sample="Where the hell are you?",
    limits=(
        "The factors of J are what their judges say they are; the adapter was trained against them and may have learned their blind spots.",
        "A rewrite may lose what was meant. Do not use it where the wording is evidence.",
        "Other languages, longer texts and other kinds of abuse than the dataset's were not measured.",
    ),
)
