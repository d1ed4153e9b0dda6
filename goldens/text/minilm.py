# Vectors of texts by MiniLM, written out in numpy in double precision: `python minilm.py FOLDER` prints `minilm.json`.
import json,sys,numpy as np
from tokenizers import Tokenizer
from safetensors.numpy import load_file
folder=sys.argv[1]
w={k:v.astype(np.float64) for k,v in load_file(folder+"/model.safetensors").items() if v.dtype!=np.int64}
tok=Tokenizer.from_file(folder+"/tokenizer.json"); tok.no_padding(); tok.enable_truncation(256)
from math import erf
ERF=np.vectorize(erf)
def ln(x,n): 
    m=x.mean(-1,keepdims=True); v=((x-m)**2).mean(-1,keepdims=True)
    return (x-m)/np.sqrt(v+1e-12)*w[n+".weight"]+w[n+".bias"]
def lin(x,n): return x@w[n+".weight"].T+w[n+".bias"]
def encode(text):
    ids=tok.encode(text).ids; t=len(ids)
    e="embeddings."
    x=w[e+"word_embeddings.weight"][ids]+w[e+"position_embeddings.weight"][:t]+w[e+"token_type_embeddings.weight"][0]
    x=ln(x,e+"LayerNorm")
    for l in range(6):
        p=f"encoder.layer.{l}."
        q,k,v=[lin(x,p+f"attention.self.{n}").reshape(t,12,32).transpose(1,0,2) for n in ("query","key","value")]
        s=q@k.transpose(0,2,1)/np.sqrt(32); s=np.exp(s-s.max(-1,keepdims=True)); s/=s.sum(-1,keepdims=True)
        a=(s@v).transpose(1,0,2).reshape(t,384)
        x=ln(lin(a,p+"attention.output.dense")+x,p+"attention.output.LayerNorm")
        h=lin(x,p+"intermediate.dense"); h=0.5*h*(1+ERF(h/np.sqrt(2)))
        x=ln(lin(h,p+"output.dense")+x,p+"output.LayerNorm")
    m=x.mean(0); return m/np.linalg.norm(m)
texts = ["hey jarvis", "Turn on the lights, please.", "zero, three or seven", "Grüße, 世界!", "word " * 400]
print(json.dumps([{"text": text, "vector": [round(float(v), 7) for v in encode(text)[:16]]} for text in texts], indent=1))
