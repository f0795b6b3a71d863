"""Which words a ComfyUI graph says: through pipes, switches and text nodes, and how sure that is."""

import pytest

from tests.metadata.comfygraphs import drawn, encoded, graph, ksampler, node, prompt_of, read, workflow


def said(**strings):
    """What is read where the text of the positive encoder is a wire to node `s`."""
    return read(graph(cat=node("CLIPTextEncode", text=["s", 0], clip=["model", 1]), **strings))


# --- text nodes


@pytest.mark.parametrize(
    ("joining", "expected"),
    [
        (node("StringConcatenate", string_a="a red", string_b="cat", delimiter=" "), "a red cat"),
        (node("Text Concatenate", delimiter=", ", clean_whitespace="true", text_a=" a cat ", text_b="red "), "a cat, red"),
        (node("Text Concatenate", delimiter="\\n", text_a="a cat", text_b="red"), "a cat\nred"),
        (node("JoinStringMulti", inputcount=3, delimiter=" ", string_2="red", string_10="cat", string_1="a"), "a red cat"),
        (node("JWStringConcat", a="a red", b=" cat"), "a red cat"),
        (node("easy promptConcat", prompt1="a red", prompt2="cat", separator=" "), "a red cat"),
        (node("CR Text Concatenate", text1="a red", text2="", separator=", "), "a red"),
    ],
    ids=lambda value: value["class_type"] if isinstance(value, dict) else "",
)
def test_joined_texts_are_joined(joining, expected):
    assert said(s=joining).prompt == expected


def test_part_that_is_used_twice_is_said_twice():
    joined = node("StringConcatenate", string_a=["a", 0], string_b=["a", 0], delimiter=" and ")
    assert said(s=joined, a=node("String Literal", string="a cat")).prompt == "a cat and a cat"


@pytest.mark.parametrize(
    ("changing", "expected"),
    [
        (node("StringReplace", string=["a", 0], find="cat", replace="bird"), "A bird "),
        (node("CR Text Replace", text=["a", 0], find1="A", replace1="the", find2="cat", replace2="dog"), "the dog "),
        (node("RegexReplace", string=["a", 0], regex_pattern="^a", replace="The", case_insensitive=True), "The cat "),
        (node("RegexReplace", string=["a", 0], regex_pattern="^a", replace="The", case_insensitive=False), "A cat "),
        (node("StringTrim", string=["a", 0], mode="Both"), "A cat"),
        (node("CaseConverter", string=["a", 0], mode="UPPERCASE"), "A CAT "),
        (node("StringSubstring", string=["a", 0], start=2, end=5), "cat"),
    ],
    ids=lambda value: value["class_type"] if isinstance(value, dict) else "",
)
def test_changed_text_is_changed(changing, expected):
    shown = node("Joined with something", string_a=["s", 0], string_b="|")  # keeps the blanks that a prompt would lose
    found = read(graph(cat=node("CLIPTextEncode", text=["j", 0]), j=shown, s=changing, a=node("String Literal", string="A cat ")))
    assert found.prompt == (expected + "|")
    assert found.certainty == "derived"


def test_pattern_that_could_run_for_ever_is_not_applied():
    found = said(s=node("RegexReplace", string="a" * 40, regex_pattern="(a+)+$", replace="b"))
    assert (found.prompt, found.certainty) == ("a" * 40, "guess")
    assert "pattern" in found.warnings[0]


def test_broken_pattern_is_not_applied():
    assert said(s=node("RegexReplace", string="a cat", regex_pattern="(", replace="b")).prompt == "a cat"


def test_zipped_prompt_has_two_sides():
    unzipped = node("UnzipPrompt //Inspire", zipped_prompt=["z", 0])
    zipped = node("LoadSinglePromptFromFile //Inspire", text_data_opt="positive: a cat\n\nnegative: a dog")
    sides = {"cat": node("CLIPTextEncode", text=["s", 0]), "dog": node("CLIPTextEncode", text=["s", 1])}
    found = read(graph(s=unzipped, z=zipped, **sides))
    assert (found.prompt, found.negative_prompt) == ("a cat", "a dog")


@pytest.mark.parametrize("kind", ["PreviewAny", "Display Any (rgthree)"])
def test_node_that_only_shows_a_text_passes_it_on(kind):
    assert said(s=node(kind, source=["a", 0]), a=node("PrimitiveString", value="a cat")).prompt == "a cat"


@pytest.mark.parametrize(
    ("switch", "chosen"),
    [
        (node("ComfySwitchNode", switch=True, on_false=["a", 0], on_true=["b", 0]), "bird"),
        (node("ComfySwitchNode", switch=["off", 0], on_false=["a", 0], on_true=["b", 0]), "cat"),
        (node("ImpactSwitch", select=2, input1=["a", 0], input2=["b", 0]), "bird"),
        (node("CR Text Input Switch", Input=1, text1=["a", 0], text2=["b", 0]), "cat"),
        (node("Any Switch (rgthree)", any_02=["b", 0], any_03=["a", 0]), "bird"),
        (node("easy textSwitch", input=2, text1="cat", text2="bird"), "bird"),
    ],
    ids=lambda value: value["class_type"] if isinstance(value, dict) else "",
)
def test_switch_gives_out_what_it_is_set_to(switch, chosen):
    strings = {"a": node("String Literal", string="cat"), "b": node("String Literal", string="bird")}
    assert said(s=switch, off=node("PrimitiveBoolean", value=False), **strings).prompt == chosen


def test_wildcard_template_is_an_alternative_to_its_result():
    found = said(s=node("ImpactWildcardProcessor", wildcard_text="__animal__", populated_text="a cat"))
    assert (found.prompt, found.alternatives, found.certainty) == ("a cat", ("__animal__",), "derived")


def test_text_given_to_a_language_model_is_a_guess():
    found = said(s=node("TextGenerate", prompt="a cat", max_length=256))
    assert (found.prompt, found.certainty) == ("a cat", "guess")
    assert "language model" in found.warnings[0]


def test_text_shown_beside_a_language_model_is_what_it_wrote():
    strings = {
        "s": node("TextGenerate", prompt="cat"),
        "shown": node("ShowText|pysssss", text=["s", 0], text_0="a cat in the rain"),
    }
    found = said(**strings)
    assert (found.prompt, found.alternatives, found.certainty) == ("a cat in the rain", ("cat",), "derived")


def test_text_shown_beside_a_known_text_does_not_replace_it():
    strings = {
        "s": node("String Literal", string="a cat"),
        "shown": node("ShowText|pysssss", text=["s", 0], text_0="of last time"),
    }
    assert said(**strings).prompt == "a cat"


def test_words_of_a_language_model_may_stand_on_the_canvas():
    run = graph(cat=node("CLIPTextEncode", text=["s", 0]), s=node("TextGenerate", prompt="cat"))
    nodes = [
        drawn(1, "TextGenerate", outputs=["STRING"], widgets=["cat"]),
        drawn(2, "ShowText|pysssss", [("text", "STRING", 1)], ["STRING"], [["a cat in the rain"]]),
        drawn(3, "CLIPTextEncode", [("text", "STRING", 2, "text")], ["CONDITIONING"], [""]),
        drawn(4, "KSampler", [("positive", "CONDITIONING", 3)], ["LATENT"], [1, "fixed", 2, 3, "euler", "normal", 1]),
    ]
    found = read(run, workflow(*nodes, links=[(1, 1, 0, 2, 0), (2, 2, 0, 3, 0), (3, 3, 0, 4, 0)]))
    assert (found.prompt, found.where) == ("a cat in the rain", "PNG workflow")


def test_style_that_adds_words_makes_a_guess():
    def styled(style: str):
        return said(s=node("SDXLPromptStyler", text_positive="a cat", text_negative="a dog", style=style))

    assert (styled("anime").prompt, styled("anime").certainty) == ("a cat", "guess")
    assert (styled("base").prompt, styled("base").certainty) == ("a cat", "derived")


def test_sentence_of_a_node_without_a_text_input_is_a_guess():
    found = said(
        s=node("Unheard Of", entry="a cat in the rain", preset_file="some cats.txt", exclude_tags="a dog, a very big dog")
    )
    assert (found.prompt, found.certainty) == ("a cat in the rain", "guess")
    assert said(s=node("Unheard Of", mode="fast", preset_file="some cats.txt")).prompt == ""


# --- encoders


def test_texts_of_the_other_encoders_are_alternatives():
    found = read(graph(cat=node("CLIPTextEncodeSD3", clip_l="cat", clip_g="cat", t5xxl="a cat in the rain", clip=["model", 1])))
    assert (found.prompt, found.alternatives, found.certainty) == ("a cat in the rain", ("cat",), "derived")


def test_instruction_before_the_prompt_is_left_out_in_an_alternative():
    found = read(graph(cat=encoded("You are an assistant. <Prompt Start> a cat")))
    assert (found.prompt, found.alternatives) == ("You are an assistant. <Prompt Start> a cat", ("a cat",))


def test_song_is_told_by_its_tags():
    assert prompt_of(cat=node("TextEncodeAceStepAudio", tags="folk", lyrics="a long long song", clip=["model", 1])) == "folk"


def test_encoder_with_a_prompt_and_a_negative_prompt_gives_them_at_two_outputs():
    both = node("TextEncodeSomething", prompt="a cat", negative_prompt="a dog", clip=["model", 1])
    found = read(graph(cat=both, sampler=ksampler(negative=["cat", 1])))
    assert (found.prompt, found.negative_prompt) == ("a cat", "a dog")


def test_suite_that_gives_both_prompts_after_other_things_is_asked_for_a_side():
    words = {"text": node("String Literal", string="a cat"), "style": node("Prompt With Style", positive_prompt=["text", 0])}
    words["style"]["inputs"] |= {"negative_prompt": ["no", 0], "style": "none"}
    sides = {"cat": node("CLIPTextEncode", text=["style", 1]), "dog": node("CLIPTextEncode", text=["style", 2])}
    found = read(graph(**words, **sides, no=node("String Literal", string="a dog")))
    assert (found.prompt, found.negative_prompt) == ("a cat", "a dog")


def test_embeds_carry_both_sides():
    texts = node("WanVideoTextEncode", positive_prompt="a cat", negative_prompt="a dog", t5=["model", 0])
    sampler = node("WanVideoSampler", model=["model", 0], text_embeds=["cat", 0], steps=5, cfg=2, seed=3, scheduler="unipc")
    found = read(graph(cat=texts, sampler=sampler))
    assert (found.prompt, found.negative_prompt, found.seed) == ("a cat", "a dog", 3)


def test_conditioning_goes_through_image_to_video():
    video = node("WanImageToVideo", positive=["cat", 0], negative=["dog", 0], vae=["model", 2], width=64, height=32, length=5)
    found = read(graph(v=video, sampler=ksampler(positive=["v", 0], negative=["v", 1], latent_image=["v", 2])))
    assert (found.prompt, found.negative_prompt, found.written_size) == ("a cat", "a dog", (64, 32))


# --- which sampler, and how sure


def test_plain_graph_is_derived_and_competing_prompts_are_a_guess():
    assert read(graph()).certainty == "derived"
    other = {
        "s2": node("SaveImage", images=["d2", 0]),
        "d2": node("VAEDecode", samples=["k2", 0]),
        "k2": ksampler(positive=["bird", 0]),
        "bird": encoded("a bird"),
    }
    found = read(graph(**other))
    assert (found.prompt, found.certainty, found.alternatives) == ("a cat", "guess", ("a bird",))


def test_longest_text_is_a_guess():
    assert read({"1": node("Lonely", text="a cat")}).certainty == "guess"


def test_placeholder_is_no_prompt():
    assert read({"1": node("Lonely", text="unknown")}).prompt == ""


def test_node_that_saves_the_prompt_as_text_is_no_sampler():
    saver = node("Image Saver", images=["decode", 0], positive=["words", 0], steps=9, sampler_name="x", seed_value=1)
    found = read(graph(save=saver, words=node("String Literal", string="unknown")))
    assert (found.prompt, found.steps, found.certainty) == ("a cat", 20, "derived")


def test_base_counts_more_than_refiner_where_one_node_samples_with_both():
    pipes = {
        "base": node("ToBasicPipe", model=["model", 0], positive=["cat", 0], negative=["dog", 0]),
        "refine": node("ToBasicPipe", model=["model", 0], positive=["bird", 0], negative=["dog", 0]),
        "bird": encoded("a bird"),
    }
    sampler = node("## ksample", refiner_basic_pipe=["refine", 0], base_basic_pipe=["base", 0], latent_image=["empty", 0])
    assert prompt_of(sampler=sampler, **pipes) == "a cat"


def test_node_called_sampler_needs_no_steps():
    suite = node("Mikey Sampler", samples=["empty", 0], positive_cond_base=["cat", 0], negative_cond_base=["dog", 0], seed=5)
    saver = node("SaveImage", images=["decode", 0], text="a text that is nearer to the output")
    found = read(graph(sampler=suite, save=saver))
    assert (found.prompt, found.negative_prompt, found.seed) == ("a cat", "a dog", 5)


def test_sampler_provider_is_a_sampler():
    provider = node("KSamplerProvider", model=["model", 0], positive=["cat", 0], negative=["dog", 0], seed=1, steps=5, cfg=2)
    regional = node("RegionalSampler", samples=["empty", 0], base_sampler=["p", 0], seed=3, steps=9)
    assert prompt_of(sampler=regional, p=provider) == "a cat"


def test_sampler_that_saves_by_itself_drew_the_image():
    loader = node(
        "easy fullLoader", ckpt_name="x.ckpt", positive="a cat", negative="a dog", empty_latent_width=64, empty_latent_height=32
    )
    found = read({"1": loader, "2": node("easy kSampler", pipe=["1", 0], seed=4, steps=5, cfg=2, image_output="Save")})
    assert (found.prompt, found.negative_prompt, found.seed, found.written_size) == ("a cat", "a dog", 4, (64, 32))
    assert (found.model, found.certainty) == ("x.ckpt", "derived")


def test_sampler_that_saves_by_itself_competes_with_one_that_is_shown():
    both = {
        "1": node("easy fullLoader", positive="a bird", negative=""),
        "2": node("easy kSampler", pipe=["1", 0], seed=4, steps=5),
    }
    found = read(graph(**both))
    assert (found.prompt, found.alternatives, found.certainty) == ("a cat", ("a bird",), "guess")


def test_text_that_is_saved_as_text_is_not_the_prompt_of_a_picture():
    texts = {"0": node("SaveText", text=["1", 0]), "1": node("String Literal", string="a long text that was saved as a text")}
    drawing = {"2": node("HostedImage", prompt="a cat"), "3": node("SaveImage", images=["2", 0])}
    found = read(texts | drawing)
    assert (found.prompt, found.certainty) == ("a cat", "derived")


def test_prompts_edited_into_a_pipe_count():
    edited = node("easy pipeEdit", model=["model", 0], optional_positive="a cat", optional_negative="a dog")
    found = read(graph(e=edited, sampler=ksampler(positive=["e", 2], negative=["e", 3])))
    assert (found.prompt, found.negative_prompt) == ("a cat", "a dog")


def test_first_of_chained_nodes_that_draw_by_themselves_is_the_nearest_to_the_output():
    chain = {
        "1": node("HostedImage", prompt="a cat"),
        "2": node("HostedEdit", prompt="make it a bird", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0]),
    }
    found = read(chain)
    assert (found.prompt, found.alternatives, found.certainty) == ("make it a bird", ("a cat",), "guess")
